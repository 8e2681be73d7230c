"""What agents say to be good at."""

import pytest

from meshnode.core.errors import PeerError, UsageError
from meshnode.core.packing import pack
from meshnode.core.registry import (
    ATTRIBUTES_MAX,
    TEXT_CHARS_MAX,
    registry_key,
    registry_row,
    specialist,
    specialist_from_row,
)

LONG = "x" * (TEXT_CHARS_MAX + 1)


def test_an_entry_comes_back_as_it_was():
    entry = specialist("agent", "docs", {"load": "0.5", "": ""})
    assert specialist_from_row(registry_key(entry), registry_row(entry)) == entry


def test_entries_of_one_agent_differ_by_specialization_only():
    keys = {
        registry_key(specialist(agent, spec, {"load": load}))
        for agent in "ab"
        for spec in "cd"
        for load in "12"
    }
    assert len(keys) == 4


def test_the_longest_texts_are_accepted():
    specialist("a" * TEXT_CHARS_MAX, "s" * TEXT_CHARS_MAX, {LONG[1:]: LONG[1:]})


@pytest.mark.parametrize(
    ("agent", "spec", "attributes"),
    [
        ("", "docs", {}),
        ("agent", "", {}),
        (LONG, "docs", {}),
        ("agent", LONG, {}),
        ("agent", "docs", {LONG: ""}),
        ("agent", "docs", {"load": LONG}),
        ("agent", "docs", {str(n): "" for n in range(ATTRIBUTES_MAX + 1)}),
    ],
)
def test_what_is_too_long_or_empty_is_the_users_fault(agent: str, spec: str, attributes: dict):
    with pytest.raises(UsageError):
        specialist(agent, spec, attributes)


@pytest.mark.parametrize(
    ("key", "row"),
    [
        (b"", pack({})),
        (pack("agent"), pack({})),
        (pack(["agent"]), pack({})),
        (pack(["agent", 1]), pack({})),
        (pack(["agent", "docs", "more"]), pack({})),
        (pack(["agent", "docs"]), pack([])),
        (pack(["agent", "docs"]), pack({1: 2})),
        (pack(["agent", "docs"]), b"\xc1"),
    ],
)
def test_a_row_that_is_none_is_the_peers_fault(key: bytes, row: bytes):
    with pytest.raises(PeerError):
        specialist_from_row(key, row)
