"""Whatever a sender puts into a line, it is read alike with and without a form that is known."""

from pathlib import Path
from unittest.mock import patch

from hypothesis import event, given
from hypothesis import strategies as st

from meshnode.ingest import higress, line_form
from meshnode.ingest.line_form import LineForm

PLAIN = (Path(__file__).parents[1] / "golden/higress/plain.log").read_bytes().splitlines()[0]
PIECES = (
    b'","request_id":"forged',
    b'","ai_log":"{\\"model\\":\\"forged\\"}',
    b'","consumer":"forged',
    b'","start_time":"2024-01-01T00:00:00Z',
    b'","\\u0061i_log":"{}',
    b'","\\u0072equest_id":"forged',
    b'","z":"',
    b',  "ai_log" : "{}"',
    b'\\"',
    b'\\\\"',
    b"\\",
    b'"',
    b",",
    b"a" * 700,
)
SPOTS = tuple(index for index, byte in enumerate(PLAIN) if byte not in b'{}[]":,\\')


def _read(line: bytes, form: LineForm) -> object:
    with patch.object(higress, "_FORM", form):
        return higress.parse_line(line, "access.log", "f", 0)


def _known() -> LineForm:
    form = LineForm()
    _read(PLAIN, form)
    assert form.has(PLAIN)
    return form


@given(st.lists(st.tuples(st.sampled_from(SPOTS), st.lists(st.sampled_from(PIECES))), max_size=3))
def test_a_known_form_changes_nothing_but_the_time_it_takes(put: list[tuple[int, list[bytes]]]):
    line = PLAIN
    for spot, pieces in sorted(put, reverse=True):
        line = line[:spot] + b"".join(pieces) + line[spot:]
    form = _known()
    event(f"of the form: {form.has(line)}")
    assert _read(line, form) == _read(line, LineForm())


def test_a_sender_who_thinks_of_names_makes_no_form_of_each():
    form = LineForm()
    with patch.object(line_form, "_tail", wraps=line_form._tail) as made:
        for number in range(100):
            _read(PLAIN.replace(b"curl/8", b'x","q%d":"y' % number), form)
            _read(PLAIN, form)
    assert made.call_count == line_form.FORMS_MAX
    assert form.has(PLAIN)
