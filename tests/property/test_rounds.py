"""Whatever a log says was said, a round of it is bounded, and can be read again."""

from hypothesis import given
from hypothesis import strategies as st

from meshnode.core.ledger.rounds import (
    ROUND_BYTES_MAX,
    Texts,
    texts_from,
    texts_from_bytes,
    texts_to_bytes,
)

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
long = st.builds(
    lambda text, times: text * times, st.text(min_size=1, max_size=3), st.integers(0, 300_000)
)
messages = st.lists(st.fixed_dictionaries({"role": st.text(), "content": anything | long}))
calls = st.lists(
    st.fixed_dictionaries(
        {"id": anything, "function": st.fixed_dictionaries({"name": long, "arguments": long})}
    )
)
NAMES = tuple(Texts.__struct_fields__)


@given(st.dictionaries(st.sampled_from(NAMES), anything | long | messages | calls))
def test_what_was_said_is_bounded_and_read_again(said: dict[str, object]):
    texts = texts_from(said)
    packed = texts_to_bytes(texts)
    assert len(packed) <= ROUND_BYTES_MAX
    assert texts_from_bytes(packed) == texts


@given(long, long)
def test_what_was_cut_is_said_and_what_was_not_is_whole(question: str, answer: str):
    texts = texts_from({"question": question, "answer": answer})
    whole = {"question": texts.question == question, "answer": texts.answer == answer}
    assert {name for name, kept in whole.items() if not kept} <= set(texts.cut)
