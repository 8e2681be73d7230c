"""What odd writers make of numbers and times: read as they are meant, or set aside."""

import pytest

from meshnode.ingest.lenient import COUNT_MAX, ContradictionError, at_s_of, count_of


@pytest.mark.parametrize(
    ("written", "count"),
    [(7, 7), (7.0, 7), ("7", 7), ("0" * 23 + "7", 7), (str(COUNT_MAX), COUNT_MAX)],
)
def test_a_count_is_read_however_it_is_written(written, count):
    assert count_of(written) == count


@pytest.mark.parametrize("nothing", [None, "", "-", "null"])
def test_no_count_is_none(nothing):
    assert count_of(nothing) is None


@pytest.mark.parametrize(
    "odd", [-1, COUNT_MAX + 1, 1e300, float("nan"), True, "x", [], {}, "0" * 24 + "7", "9" * 30]
)
def test_what_is_no_count_is_refused_and_not_cut(odd):
    with pytest.raises(ContradictionError):
        count_of(odd)


@pytest.mark.parametrize(
    "written", ["2026-11-20T09:30:15Z", "2026-11-20t09:30:15z", "2026-11-20T11:30:15+02:00"]
)
def test_a_time_is_read_as_rfc_3339_has_it(written):
    assert at_s_of(written) == 1_795_167_015.0


@pytest.mark.parametrize(
    "odd", ["", "z", "yesterday", "1969-12-31T23:59:59Z", "2026-13-01T00:00:00Z"]
)
def test_what_is_no_time_is_refused(odd):
    with pytest.raises(ContradictionError):
        at_s_of(odd)
