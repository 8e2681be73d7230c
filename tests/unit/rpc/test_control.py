"""Whose fault it is when an entry of the control set is not taken."""

from random import Random

import pytest

from meshnode.core.control.control import NoAuthorityError, NoRoomError
from meshnode.core.control.shares import FullError
from meshnode.core.errors import (
    ConflictError,
    ExhaustedError,
    MeshError,
    NotFoundError,
    NotPermittedError,
    PeerError,
    UsageError,
)
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.ids import NodeId, node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.genesis import Limits
from meshnode.rpc.control import add_control, read_head
from meshnode.v1 import local_service_pb2 as pb
from meshnode.wire.signed import signed_from_wire, signed_to_wire

KEY = Key.new(Random(74).randbytes)
ENTRY = Signed("control", b"entry", bytes(64))
REQUEST = pb.AddControlRequest(entry=signed_to_wire(ENTRY))


@pytest.mark.parametrize(
    ("inside", "outside"),
    [
        (NoAuthorityError("not you"), NotPermittedError),
        (NoRoomError("no room"), ConflictError),
        (FullError("full"), ExhaustedError),
        (PeerError("no entry"), UsageError),
        (ConflictError("a newer one"), ConflictError),
    ],
)
async def test_a_refusal_says_whose_fault_it_is(inside: MeshError, outside: type[MeshError]):
    async def submit(entry: Signed) -> None:
        raise inside

    with pytest.raises(outside, match=inside.message) as told:
        await add_control(submit, REQUEST)
    assert type(told.value) is outside


async def test_an_entry_is_handed_on_as_it_was_signed():
    taken: list[Signed] = []

    async def submit(entry: Signed) -> None:
        taken.append(entry)

    assert await add_control(submit, REQUEST) == pb.AddControlResponse()
    assert taken == [ENTRY]


def test_a_head_is_what_its_node_has_signed():
    feed = OwnFeed(KEY, "m", Limits(), 1)
    replicas = {feed.origin: feed}
    request = pb.ReadHeadRequest(node_id=node_id_of(KEY.public))
    with pytest.raises(NotFoundError):
        read_head(replicas, request)
    feed.write("t", b"k", b"v")
    feed.flush(1.0)
    assert feed.header is not None
    assert signed_from_wire(read_head(replicas, request).header) == feed.header.signed
    with pytest.raises(NotFoundError):
        read_head(replicas, pb.ReadHeadRequest(node_id=NodeId("somebody")))
