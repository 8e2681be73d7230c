"""Readings that are kept together: they say what each of them said."""

from usage_records import usage_record

from meshnode.core.ledger.ledger import Batch, Diagnostics, DiagnosticsKey
from meshnode.ingest.reading import Reading, Reason, Remark, together

KEY = DiagnosticsKey("higress", "00ff")


def piece(number: int, records: int, *, more: bool = True, detail: str = "ok") -> Reading:
    counts = Diagnostics(unparsable_lines=1, partial_tail_bytes=number)
    made = tuple(usage_record(f"r{10 * number + one}") for one in range(records))
    batch = Batch(KEY, "log", {b"a": b"%d" % number, b"p%d" % number: b"x"}, made, counts)
    remarks = (Remark("log", number, Reason.UNPARSABLE),)
    return Reading(batch, more, detail, remarks)


def test_pieces_are_joined_up_to_a_number_of_them_or_of_records():
    counts = (9, 1, 1, 5, 1, 1, 1)
    pieces = [piece(number, records) for number, records in enumerate(counts)]
    found = list(together([*pieces, piece(7, 0, more=False)], 2, 4, lambda: True))
    assert [len(one.batch.records) for one in found] == [9, 2, 5, 2, 1]
    assert [one.more for one in found] == [True, True, True, True, False]


def test_nobody_waits_for_a_piece_while_there_are_some_to_keep():
    pieces = [piece(number, 1, more=number < 8) for number in range(9)]
    ready = iter([False, True, True, False, False, True, True, True])
    found = list(together(pieces, 4, 100, lambda: next(ready)))
    assert [len(one.batch.records) for one in found] == [1, 3, 1, 4]


def test_what_is_joined_says_all_that_its_parts_did():
    pieces = [piece(0, 3), piece(1, 1, detail="cannot read x", more=False)]
    (found,) = together(pieces, 9, 9, lambda: True)
    assert [one.idem_key for one in found.batch.records] == ["r0", "r1", "r2", "r10"]
    assert found.batch.places == {b"a": b"1", b"p0": b"x", b"p1": b"x"}
    assert found.batch.diagnostics == Diagnostics(unparsable_lines=2, partial_tail_bytes=1)
    assert (found.detail, [one.offset for one in found.remarks]) == ("cannot read x", [0, 1])


def test_one_that_is_all_stays_as_it_is():
    alone = piece(0, 1, more=False)
    assert list(together([alone], 4, 100, lambda: True)) == [alone]


def test_what_was_wrong_first_is_said_to_the_end():
    pieces = [piece(0, 1), piece(1, 1, detail="cannot read x"), piece(2, 1, detail="or y")]
    found = together([*pieces, piece(3, 1, more=False)], 1, 9, lambda: True)
    assert [one.detail for one in found] == ["ok", *["cannot read x"] * 3]
