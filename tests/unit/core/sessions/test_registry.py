"""What agents say to be good at."""

import pytest

from meshnode.core.errors import PeerError, UsageError
from meshnode.core.packing import pack
from meshnode.core.sessions.registry import (
    ATTRIBUTES_MAX,
    NUMBER_MAX,
    TEXT_CHARS_MAX,
    Birth,
    Registration,
    load_of,
    place_of,
    registration_from_row,
    registry_key,
    registry_row,
    specialist,
)

LONG = "x" * (TEXT_CHARS_MAX + 1)
BIRTH = Birth(7, 1)
ROW = {"attributes": {}, "birth": [7, 1]}


def test_an_entry_comes_back_as_it_was():
    entry = specialist("agent", "docs", {"load": "0.5", "": "", "team": "red"})
    back = registration_from_row(registry_key(entry.place), registry_row(entry, BIRTH))
    assert back == Registration(entry, BIRTH)


def test_entries_of_one_agent_differ_by_specialization_only():
    keys = {
        registry_key(specialist(agent, spec, {"load": load}).place)
        for agent in "ab"
        for spec in "cd"
        for load in "01"
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


def test_a_place_is_checked_as_an_entry_is():
    assert place_of("agent", "docs") == specialist("agent", "docs", {}).place
    for agent, spec in (("", "docs"), ("agent", ""), (LONG, "docs")):
        with pytest.raises(UsageError):
            place_of(agent, spec)


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("load", ("0", "1", "0.35", "1e-1", "0%", "35%", "100%")),
        ("capacity", ("0", "4", "4.0", str(NUMBER_MAX))),
        ("version", ("1.4.2", "main")),
        ("cost_per_mtok_usd", ("0", "2.50", "1e2")),
        ("cost_per_call_usd", ("0.01",)),
        ("anything", ("", "at all")),
    ],
)
def test_attributes_with_a_meaning_are_kept_as_written(name: str, texts: tuple[str, ...]):
    for text in texts:
        assert specialist("a", "b", {name: text}).attributes == {name: text}


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("load", ("", "much", "-0.1", "1.1", "101%", "nan", "inf", "0_1", "٣", "30 %%")),
        ("capacity", ("", "1.5", "-1", "many", "1e400", str(NUMBER_MAX + 1))),
        ("version", ("", "  ")),
        ("cost_per_mtok_usd", ("", "$2", "-1", "free", "nan")),
        ("cost_per_mtok", ("2.50",)),
    ],
)
def test_an_attribute_that_is_not_what_its_name_says_is_the_users_fault(
    name: str, texts: tuple[str, ...]
):
    for text in texts:
        with pytest.raises(UsageError, match=name) as error:
            specialist("a", "b", {name: text})
        assert error.value.hint, text


def test_a_load_is_a_share_however_it_is_written():
    assert [load_of(text) for text in ("0.3", "30%", "1", "2", "", "x%")] == [
        0.3,
        0.3,
        1.0,
        None,
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("key", "row"),
    [
        (b"", pack(ROW)),
        (pack("agent"), pack(ROW)),
        (pack(["agent"]), pack(ROW)),
        (pack(["agent", 1]), pack(ROW)),
        (pack(["agent", "docs", "more"]), pack(ROW)),
        (b"\xdc\x00\x02\xa5agent\xa4docs", pack(ROW)),
        (pack(["agent", "docs"]), pack([])),
        (pack(["agent", "docs"]), pack({1: 2})),
        (pack(["agent", "docs"]), b"\xc1"),
        (pack(["agent", "docs"]), pack({"birth": [7, 1]})),
        (pack(["agent", "docs"]), pack({"attributes": {}})),
        (pack(["agent", "docs"]), pack({"attributes": {}, "birth": [7]})),
        (pack(["agent", "docs"]), pack({"attributes": {}, "birth": [7, -1]})),
        (pack(["agent", "docs"]), pack({"attributes": {}, "birth": [True, 1]})),
    ],
)
def test_a_row_that_is_none_is_the_peers_fault(key: bytes, row: bytes):
    with pytest.raises(PeerError):
        registration_from_row(key, row)


def test_a_field_of_a_later_version_is_passed_by():
    entry = specialist("agent", "docs", {})
    row = pack(ROW | {"later": [1]})
    assert registration_from_row(registry_key(entry.place), row) == Registration(entry, BIRTH)
