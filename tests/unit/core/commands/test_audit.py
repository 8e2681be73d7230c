"""A chain of records names the first one that is not as it was written."""

import pytest

from meshnode.core.commands.audit import (
    DROPPED,
    LOG_MAX,
    SEQ_MAX,
    AuditHead,
    AuditRecord,
    Base,
    Kept,
    Wrong,
    base_of,
    contradiction,
    cut_texts,
    dropped_detail,
    head_from_row,
    head_from_signed,
    head_to_row,
    record_from_bytes,
    sign_head,
    start_hash,
    walked,
)
from meshnode.core.errors import PeerError
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key
from meshnode.core.packing import pack

NODE, OTHER = Key(b"\1" * 32), Key(b"\2" * 32)
NODE_ID = node_id_of(NODE.public)
LOG = 7


def chained(*records: AuditRecord) -> list[Kept]:
    chain, kept = start_hash(NODE.public, LOG), []
    for record in records:
        chain = record.hash_after(chain)
        kept.append(Kept(record.seq, record, chain))
    return kept


def head_of(kept: Kept, **changes) -> AuditHead:
    values = {"node": NODE_ID, "log": LOG, "seq": kept.seq, "hash": kept.hash, "at_ms": 5}
    return AuditHead(**values | changes)


WHOLE = chained(*(AuditRecord(seq, seq * 10, "thing") for seq in range(1, 8)))


def test_a_record_reads_as_it_was_written():
    record = AuditRecord(
        1, 2, "kind", *["session", "agent", "owner", "command", "actor"], detail="…"
    )
    assert record_from_bytes(record.to_bytes()) == record


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        pack({}),
        pack([]),
        pack([1, 2, *[""] * 8]),
        pack([1, 2, *[""] * 10]),
        pack([0, 2, *[""] * 9]),
        pack([1, -1, *[""] * 9]),
        pack([SEQ_MAX + 1, 2, *[""] * 9]),
        pack([True, 2, *[""] * 9]),
        pack([1, 2.0, *[""] * 9]),
        pack([1, 2, 3, *[""] * 8]),
        pack([1, 2, "k" * 65, *[""] * 8]),
    ],
)
def test_what_is_no_record_is_refused(packed):
    with pytest.raises(PeerError):
        record_from_bytes(packed)


def test_texts_are_cut_and_made_valid():
    cut = cut_texts({"kind": "k" * 99, "detail": "d" * 999, "agent": "\ud800"})
    assert (len(cut["kind"]), len(cut["detail"]), cut["agent"]) == (64, 512, "?")
    assert cut_texts(cut) == cut


def test_a_whole_log_agrees_with_every_head_of_it():
    walk, wrong = walked(NODE_ID, LOG, WHOLE, map(head_of, WHOLE))
    assert (wrong, walk.count, walk.seq, walk.hash) == (None, 7, 7, WHOLE[-1].hash)


def test_an_empty_log_is_whole_until_a_head_says_otherwise():
    assert walked(NODE_ID, LOG, [], [])[1] is None
    assert walked(NODE_ID, LOG, [], [head_of(WHOLE[2])])[1].seq == 1


def test_a_head_beyond_the_end_names_the_first_record_that_is_missing():
    assert walked(NODE_ID, LOG, WHOLE[:4], [head_of(WHOLE[6])])[1].seq == 5


def test_a_head_with_another_hash_names_its_record_and_the_last_that_agreed():
    heads = [head_of(WHOLE[2]), head_of(WHOLE[5], hash=bytes(32))]
    wrong = walked(NODE_ID, LOG, WHOLE, heads)[1]
    assert wrong == Wrong(6, "the log was rewritten from some record after 3 on")


def test_a_log_goes_on_from_what_was_dropped_if_a_record_in_it_says_so():
    said = dropped_detail(4, WHOLE[3].hash)
    full = chained(*(one.record for one in WHOLE), AuditRecord(8, 80, DROPPED, detail=said))
    assert base_of([full[-1].record], 5) == Base(4, WHOLE[3].hash)
    walk, wrong = walked(NODE_ID, LOG, full[4:], [head_of(full[2]), head_of(full[3])])
    assert (wrong, walk.count, walk.seq) == (None, 4, 8)
    assert walked(NODE_ID, LOG, full[5:], [])[1].seq == 5
    assert walked(NODE_ID, LOG, full[4:7], [])[1].seq == 1  # nothing says that they were dropped


@pytest.mark.parametrize("detail", ["", "up to 4", "up to 0 with hash " + "0" * 64, "up to x"])
def test_a_record_about_dropped_ones_that_makes_no_sense_excuses_nothing(detail):
    assert base_of([AuditRecord(8, 80, DROPPED, detail=detail)], 5) is None


def test_a_head_reads_as_it_was_signed_and_proves_its_node():
    signed = sign_head(NODE, head_of(WHOLE[0]))
    assert head_from_signed(signed) == head_of(WHOLE[0])
    assert head_from_row(head_to_row(signed), NODE_ID) == (head_of(WHOLE[0]), signed)
    with pytest.raises(PeerError, match="another node"):
        head_from_row(head_to_row(signed), node_id_of(OTHER.public))


@pytest.mark.parametrize(
    "changes",
    [{"seq": 0}, {"log": 0}, {"log": LOG_MAX + 0.5}, {"hash": b""}, {"at_ms": -1}, {"seq": True}],
)
def test_a_head_out_of_bounds_is_refused(changes):
    with pytest.raises(PeerError):
        head_from_signed(sign_head(NODE, head_of(WHOLE[0], **changes)))


def test_a_head_that_another_key_has_signed_is_refused():
    with pytest.raises(PeerError):
        head_from_signed(sign_head(OTHER, head_of(WHOLE[0])))


@pytest.mark.parametrize(
    ("earlier", "later", "seq"),
    [
        (head_of(WHOLE[3]), head_of(WHOLE[3]), None),
        (head_of(WHOLE[3]), head_of(WHOLE[5]), None),
        (head_of(WHOLE[3]), head_of(WHOLE[3], hash=bytes(32)), 4),
        (head_of(WHOLE[5]), head_of(WHOLE[3]), 5),
        (head_of(WHOLE[5]), head_of(WHOLE[6], log=8), 1),
    ],
)
def test_heads_contradict_each_other_or_do_not(earlier, later, seq):
    wrong = contradiction(earlier, later)
    assert (wrong and wrong.seq) == seq
