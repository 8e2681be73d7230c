"""The first clause that matches a name, looked up, is the one that asking in order finds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.ingest.genai_list import genai_list
from meshnode.ingest.price_clauses import Clause, Clauses
from meshnode.ingest.prices import shipped_list

pytestmark = pytest.mark.property

WORDS = st.text("ab-", max_size=3)
PARTS = st.lists(WORDS, max_size=2).map(tuple)
PLAIN = st.builds(Clause, PARTS, PARTS, PARTS)
SEARCHING = st.builds(
    Clause, PARTS, PARTS, PARTS, PARTS, all=st.lists(st.tuples(PLAIN, PLAIN), max_size=1).map(tuple)
)
LISTED = sorted(
    {model.id.lower() for one in genai_list().providers for model in one.models}
    | {part for one in genai_list().providers for m in one.models for part in m.match.equals}
)


@given(st.lists(st.none() | PLAIN | SEARCHING, max_size=6), WORDS)
def test_the_first_of_any_clauses_is_found(clauses: list[Clause | None], name: str):
    asked = (place for place, one in enumerate(clauses) if one and one.why(name))
    assert Clauses(clauses).first(name) == next(asked, None)


@given(st.sampled_from(LISTED), st.sampled_from(["", "-made-up", "x", "/", "-20250101", ":free"]))
def test_the_first_model_of_each_provider_is_found(listed: str, more: str):
    name = listed + more
    for price_list in (shipped_list(), genai_list()):
        for one in price_list.providers:
            asked = (model for model in one.models if model.match.why(name))
            assert one.find(name) is next(asked, None)
