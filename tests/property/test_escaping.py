"""The choke point before a terminal: nothing that passes it acts or hides."""

from unicodedata import category

from hypothesis import given
from hypothesis import strategies as st

from session_mesh.output.escaping import (
    FORMULA,
    MARKS_MAX,
    UNSEEN,
    cut,
    encodable,
    escape,
    inert,
    width_of,
)

ANY = st.text(st.characters(), max_size=200) | st.text(  # the first draws surrogates too
    st.sampled_from("\x1b\x07\x9b\x9d\u202e\u2066\u200b\ufeff\ud800\u3164\u0301\u0489a漢 \n\t"),
    max_size=60,
)


@given(ANY)
def test_what_is_escaped_prints_itself_and_nothing_else(text):
    shown = escape(text)
    spaces = {one for one in shown if category(one) == "Zs"}
    assert all(one.isprintable() or one in spaces for one in shown)
    assert not UNSEEN.intersection(shown)
    shown.encode()  # no surrogate is left
    marks = 0
    for one in shown:
        marks = marks + 1 if category(one) in {"Mn", "Me"} else 0
        assert marks <= MARKS_MAX


@given(ANY)
def test_escaping_twice_is_escaping_once(text):
    assert escape(escape(text)) == escape(text)


@given(ANY, st.integers(0, 80))
def test_a_cut_text_is_as_narrow_as_asked(text, width):
    assert width_of(cut(escape(text), width)) <= width


@given(ANY)
def test_a_cell_is_never_computed_and_always_encodable(text):
    cell = encodable(inert(text))
    assert cell[:1] not in FORMULA
    assert cell.removeprefix("'").encode() == encodable(text).removeprefix("'").encode()
