"""The two rows that every node writes about itself."""

import math

import pytest

from meshnode.core.errors import PeerError, UsageError
from meshnode.core.membership.members import (
    ADDRESSES_MAX,
    LABELS_BYTES_MAX,
    LABELS_MAX,
    NAME_CHARS_MAX,
    LinksRecord,
    NodeRecord,
    check_labels,
    labels_beyond,
    links_from_row,
    links_to_row,
    node_from_row,
    node_to_row,
)
from meshnode.core.packing import pack, unpack_map

NODE = NodeRecord("n1", ("a:1", "b:2"), "0.1", {"room": "lab"}, ("process",), 5, "down", 9.5)
LINKS = LinksRecord(frozenset({b"12345678", b"abcdefgh"}), {b"gone-now": "reset"})


def test_rows_come_back_as_they_were():
    assert node_from_row(node_to_row(NODE)) == NODE
    assert links_from_row(links_to_row(LINKS)) == LINKS


def test_peers_that_no_short_id_can_name_are_passed_over():
    said = LinksRecord(LINKS.peers | {b"", b"1234567", bytes(9), bytes(4000)}, LINKS.lost)
    assert links_from_row(links_to_row(said)) == LINKS


def test_equal_records_are_equal_bytes_whatever_their_order():
    lost = {b"b": "reset", b"a": "silent"}
    one = links_to_row(LinksRecord(frozenset({b"1", b"2", b"3"}), lost))
    assert one == links_to_row(
        LinksRecord(frozenset({b"3", b"2", b"1"}), dict(sorted(lost.items())))
    )


def test_labels_without_room_are_named_and_the_first_ones_fit():
    many = {f"k{one:02}": "v" for one in range(LABELS_MAX + 2)}
    assert labels_beyond(many) == [f"k{LABELS_MAX}", f"k{LABELS_MAX + 1}"]
    assert labels_beyond({"a": "é" * (LABELS_BYTES_MAX // 2), "b": "c"}) == ["a"]
    check_labels(dict(list(many.items())[:LABELS_MAX]))
    with pytest.raises(UsageError, match=f"no room for 'k{LABELS_MAX}'"):
        check_labels(many)


def node(**fields: object) -> bytes:
    return pack({**unpack_map(node_to_row(NODE)), **fields})


def links(**fields: object) -> bytes:
    return pack({**unpack_map(links_to_row(LINKS)), **fields})


def test_fields_of_a_newer_version_are_passed_over():
    assert node_from_row(node(colour="red")) == NODE
    assert links_from_row(links(speed=1)) == LINKS


def test_what_is_too_long_is_cut():
    found = node_from_row(node(name="n" * 999, addresses=[f"a:{n}" for n in range(99)]))
    assert len(found.name) == NAME_CHARS_MAX
    assert len(found.addresses) == ADDRESSES_MAX


@pytest.mark.parametrize(
    "row",
    [
        node(standing="sleeping"),
        node(labels=[]),
        node(addresses=None),
        node(journal=-1),
        node(journal=math.inf),
        node(started=math.nan),
        node(started="now"),
        pack({}),
        b"",
    ],
)
def test_a_node_row_that_is_none_is_refused(row: bytes):
    with pytest.raises(PeerError):
        node_from_row(row)


@pytest.mark.parametrize(
    "row",
    [
        links(peers=None),
        links(peers=[1 << 40]),  # as a number of bytes it would fill the memory
        links(peers=[(1 << 64) - 1]),
        links(peers=["text"]),
        links(peers={}),
        links(lost=[]),
        links(lost={1 << 40: "reset"}),
        pack({}),
        b"\xc1",
    ],
)
def test_a_links_row_that_is_none_is_refused(row: bytes):
    with pytest.raises(PeerError):
        links_from_row(row)
