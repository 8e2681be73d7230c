"""The rows by which entries are taken out, byte by byte as docs/protocol/registry.md has them."""

import json
from pathlib import Path

import pytest

from meshnode.core.errors import PeerError
from meshnode.core.feeds.headers import FLUSH, parse_header
from meshnode.core.feeds.heads import Head
from meshnode.core.ids import NodeId
from meshnode.core.keys import Signed
from meshnode.core.packing import pack
from meshnode.core.sessions.registry import (
    Birth,
    Place,
    Registration,
    Specialist,
    registration_from_row,
    registry_key,
    registry_row,
)
from meshnode.core.tables.removals import (
    DOTS_MAX,
    After,
    Answer,
    Dot,
    Removal,
    after_key,
    after_row,
    answer_key,
    answer_row,
    removal_key,
    removal_row,
    removals_from_row,
)

VECTORS = Path(__file__).parents[4] / "docs" / "protocol" / "vectors" / "registry.json"
PLACE = Place("agent", "docs")
AFTER = next(one for one in json.loads(VECTORS.read_text()) if one["row"] == "after")
AFTER_HEADER = bytes.fromhex(AFTER["means"]["header"])
KEY, DOT = removal_key(PLACE), ["node", 1, 2, 7, 3]


def written(vector: dict) -> tuple[bytes, bytes]:
    """Encode what a vector says in words."""
    said = vector["means"]
    place = Place(said.get("agent_id", ""), said.get("specialization", ""))
    births = [Birth(*birth) for birth in said.get("births", ())]
    match vector["row"]:
        case "registration":
            entry = Specialist(place.agent_id, place.specialization, said["attributes"])
            return registry_key(place), registry_row(entry, Birth(*said["birth"]))
        case "removal":
            dots = [
                Dot(NodeId(dot["origin"]), Head(dot["epoch"], dot["seq"]), Birth(*dot["birth"]))
                for dot in said["dots"]
            ]
            return removal_key(place), removal_row(dots)
        case "answer":
            return answer_key(place), answer_row(births)
        case _:
            payload, signature = bytes.fromhex(said["header"]), bytes.fromhex(said["signature"])
            header = parse_header(Signed(FLUSH, payload, signature))
            assert header.head == Head(said["epoch"], said["seq"])
            return after_key(NodeId(said["origin"])), after_row(header)


@pytest.mark.parametrize("vector", json.loads(VECTORS.read_text()), ids=lambda one: one["name"])
def test_rows_are_the_bytes_that_the_protocol_says(vector: dict):
    key, row = bytes.fromhex(vector["key"]), bytes.fromhex(vector["value"])
    assert written(vector) == (key, row)
    if vector["row"] == "registration":
        held = registration_from_row(key, row)
        assert isinstance(held, Registration)
        assert (registry_key(held.entry.place), registry_row(held.entry, held.birth)) == (key, row)
        return
    match removals_from_row(key, row):
        case Removal(place, dots):
            assert (removal_key(place), removal_row(dots)) == (key, row)
        case Answer(place, births):
            assert (answer_key(place), answer_row(births)) == (key, row)
        case After(header):
            assert (after_key(header.origin), after_row(header)) == (key, row)
        case None:
            raise AssertionError("a known row is not known")


def test_every_kind_of_row_has_a_vector():
    rows = {vector["row"] for vector in json.loads(VECTORS.read_text())}
    assert rows == {"registration", "removal", "answer", "after"}


def test_a_kind_of_a_later_version_is_passed_by():
    assert removals_from_row(pack([9, "whatever"]), pack([])) is None


def test_as_many_adds_as_may_be_are_read_and_no_more():
    dots = [["node", 1, seq, 7, seq] for seq in range(1, DOTS_MAX + 2)]
    removal = removals_from_row(KEY, pack(dots[:-1]))
    assert isinstance(removal, Removal)
    assert len(removal.dots) == DOTS_MAX
    with pytest.raises(PeerError):
        removals_from_row(KEY, pack(dots))


@pytest.mark.parametrize(
    ("key", "row"),
    [
        (b"", pack([])),
        (pack([]), pack([])),
        (pack({}), pack([])),
        (pack([0, "agent"]), pack([])),
        (pack([0, "agent", 1]), pack([])),
        (pack([0.0, "agent", "docs"]), pack([DOT])),
        (pack([False, "agent", "docs"]), pack([DOT])),
        (b"\xdc\x00\x03\x00\xa5agent\xa4docs", pack([DOT])),
        (KEY, pack({})),
        (KEY, pack([1])),
        (KEY, pack([DOT[:4]])),
        (KEY, pack([[*DOT, 1]])),
        (KEY, pack([[1, *DOT[1:]]])),
        (KEY, pack([["node", 0, 2, 7, 3]])),
        (KEY, pack([["node", 1, 1 << 63, 7, 3]])),
        (KEY, pack([["node", 1, 2, -7, 3]])),
        (pack([1, "agent", "docs"]), pack([[7]])),
        (pack([2, "node"]), pack([1])),
        (pack([2, "node"]), pack([1, 0])),
        (pack([2, 5]), pack([1, 1])),
        (pack([2, "node", "more"]), pack([1, 1])),
        (pack([2, "node"]), pack([b"", bytes(64)])),
        (pack([2, AFTER["means"]["origin"]]), pack([AFTER_HEADER, bytes(64)])),
        (pack([2, "node"]), bytes.fromhex(AFTER["value"])),
    ],
)
def test_a_row_that_is_none_is_the_peers_fault(key: bytes, row: bytes):
    with pytest.raises(PeerError):
        removals_from_row(key, row)
