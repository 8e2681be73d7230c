"""Whatever is done to a log, the first record that it touches is named; bytes decode or fail."""

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from unit.core.commands.test_audit import LOG, NODE, NODE_ID, WHOLE, head_of

from meshnode.core.commands.audit import (
    AuditRecord,
    cut_texts,
    head_from_row,
    head_to_row,
    record_from_bytes,
    sign_head,
    walked,
)
from meshnode.core.errors import PeerError
from meshnode.store.heads import HEADS_MAX, spare

HEADS = [head_of(one) for one in WHOLE]
texts = st.text(max_size=80)


@given(st.permutations(WHOLE))
def test_a_log_in_another_order_is_wrong_from_the_first_record_out_of_place(shuffled):
    found = next((n for n, one in enumerate(shuffled, 1) if one.seq != n), None)
    wrong = walked(NODE_ID, LOG, shuffled, HEADS)[1]
    assert (wrong and wrong.seq) == found


@given(st.sets(st.sampled_from(WHOLE)))
def test_a_log_with_records_removed_is_wrong_from_the_first_of_them(removed):
    left = [one for one in WHOLE if one not in removed]
    wrong = walked(NODE_ID, LOG, left, HEADS)[1]
    assert (wrong and wrong.seq) == min((one.seq for one in removed), default=None)


@given(st.integers(0, len(WHOLE) - 1), st.data())
def test_an_edited_record_is_named(place, data):
    record = WHOLE[place].record
    field = data.draw(st.sampled_from(("kind", "session", "agent", "actor", "outcome", "detail")))
    text = data.draw(texts.filter(lambda one: one != getattr(record, field)))
    edited = replace(record, **{field: text})
    log = [*WHOLE[:place], replace(WHOLE[place], record=edited), *WHOLE[place + 1 :]]
    assert walked(NODE_ID, LOG, log, HEADS)[1].seq == place + 1


@given(st.integers(1, 1 << 62), st.integers(0, 1 << 62), st.lists(texts, min_size=9, max_size=9))
def test_any_record_reads_as_it_was_written(seq, at_ms, said):
    named = dict(zip(AuditRecord.__struct_fields__[2:], said, strict=True))
    record = AuditRecord(seq, at_ms, **cut_texts(named))
    assert record_from_bytes(record.to_bytes()) == record


@given(st.binary(max_size=300))
def test_any_bytes_are_a_record_or_a_head_or_refused(raw):
    row = head_to_row(sign_head(NODE, HEADS[0]))
    for decode in (record_from_bytes, lambda one: head_from_row(one, NODE_ID)):
        with suppress(PeerError):
            decode(raw)
        with suppress(PeerError):
            decode(row[: len(raw)] + raw)


@given(st.lists(st.floats(1, 1e6), min_size=200, max_size=400))
def test_of_many_heads_the_first_and_the_newest_stay_and_gaps_grow_with_age(pauses):
    at_s, kept = 0.0, [0.0]
    for pause_s in pauses:
        at_s += pause_s
        kept.append(at_s)
        if len(kept) > HEADS_MAX:
            del kept[spare(kept)]
    assert (kept[0], kept[-1], len(kept)) == (0.0, at_s, HEADS_MAX)
    assert kept == sorted(kept)
