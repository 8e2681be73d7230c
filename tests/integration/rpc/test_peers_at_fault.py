"""A peer that is genuine and speaks as it likes: its frames are refused, our node is unharmed."""

import grpc.aio
import pytest
from integration.rpc.by_hand import (
    INTRODUCED,
    Answering,
    answering,
    flush_of,
    linked_by_hand,
    packed,
    pulse,
    raw_link,
)
from integration.rpc.fleet import serving

from meshnode.core.feeds.messages import Pulse
from meshnode.rpc import dialling
from meshnode.rpc import links as links_module
from meshnode.rpc.errors import error_from
from meshnode.rpc.links import LinkServicer
from meshnode.rpc.servers import members_server
from meshnode.v1 import command_service_pb2_grpc as commands_grpc
from meshnode.v1 import link_service_pb2 as pb


def wrong_frames() -> dict[str, bytes]:
    signed = pb.Flush().header.__class__(type="flush", payload=b"\x80", signature=bytes(64))
    return {
        "a second introduction": INTRODUCED,
        "a flush without a header": packed(pb.Frame(flush=pb.Flush(delta=b"x"))),
        "a flush with a header of nothing": packed(pb.Frame(flush=pb.Flush(header=signed))),
        "a position of nobody": packed(
            pb.Frame(vector=pb.Vector(positions=[pb.Position(origin="ß", epoch=1, seq=1)]))
        ),
        "a member of no name": packed(
            pb.Frame(members=pb.Members(members=[pb.MemberAddress(node_id="x" * 52)]))
        ),
        "a control entry without a signature": packed(pb.Frame(control=pb.Frame().control)),
    }


@pytest.mark.parametrize("name", wrong_frames())
async def test_a_wrong_frame_is_refused_and_the_link_kept(mesh, pair, name):
    anna, _ = pair
    async with linked_by_hand(mesh, anna) as call:
        await call.write(wrong_frames()[name])
        await call.write(pulse(3))
        await anna.heard.heard("received")
    assert len(anna.heard.all("refused")) == 1
    assert anna.heard.all("received") == [Pulse(3)]


async def test_a_flush_of_another_mesh_is_refused(mesh, foreign, pair):
    anna, _ = pair
    stranger = foreign.node()
    flush = flush_of(stranger, foreign.mesh_id, 1, b"\x90")
    async with linked_by_hand(mesh, anna) as call:
        await call.write(packed(links_module.message_to_wire(flush)))
        assert "another mesh" in await anna.heard.heard("refused")


@pytest.mark.parametrize("frame", [pb.Frame(), b"\x9a\x06\x02hi"], ids=["empty", "of a newer kind"])
async def test_a_frame_of_an_unknown_kind_is_passed_over(mesh, pair, frame):
    anna, _ = pair
    body = frame if isinstance(frame, bytes) else frame.SerializeToString()
    async with linked_by_hand(mesh, anna) as call:
        await call.write(b"\x0a" + bytes([len(body)]) + body)
        await call.write(pulse(3))
        await anna.heard.heard("received")
    assert anna.heard.all("refused") == []


async def test_bytes_that_are_no_frame_end_the_link(mesh, pair):
    anna, _ = pair
    async with linked_by_hand(mesh, anna) as call:
        await call.write(b"\xff\xff\xff")
        await anna.heard.heard("unlinked")
        await call.code()
    assert len(anna.heard.all("refused")) == 1
    await anna.quiet()


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (packed(pb.Frame(introduction=pb.Introduction(boot=1, protocol=99))), "protocol 99"),
        (pulse(1), "does not begin with an introduction"),
        (packed(pb.Frame()), "does not begin with an introduction"),
        (b"\xff\xff\xff", "no request of this service"),
    ],
    ids=["another protocol", "a pulse", "nothing", "no frame"],
)
async def test_a_stream_that_begins_wrongly_becomes_no_link(mesh, pair, first, says):
    anna, _ = pair
    async with raw_link(mesh, anna) as call:
        await call.write(first)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await call.read()
    assert says in error_from(failure.value, "it").message
    assert anna.heard.all("linked") == []


async def test_a_caller_who_says_nothing_is_let_go(mesh, pair, monkeypatch, caplog):
    monkeypatch.setattr(links_module, "INTRODUCTION_TIMEOUT_S", 0.1)
    anna, _ = pair
    async with raw_link(mesh, anna) as call:
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "no introduction" in await call.details()
    assert "internal error" not in caplog.text


async def test_a_caller_who_leaves_before_speaking_leaves_nothing_behind(mesh, pair):
    anna, _ = pair
    async with raw_link(mesh, anna) as call:
        await call.done_writing()
        await call.code()
    assert anna.heard.events == []


@pytest.mark.parametrize(
    ("first", "says"),
    [
        (packed(pb.Frame(introduction=pb.Introduction(boot=1, protocol=99))), "protocol 99"),
        (pulse(1), "does not begin with an introduction"),
        (b"\xff\xff\xff", "no frame"),
    ],
    ids=["another protocol", "a pulse", "no frame"],
)
async def test_a_dial_that_is_answered_wrongly_fails_with_the_reason(mesh, pair, first, says):
    anna, _ = pair
    member, servicer = mesh.node(), Answering(first)
    async with answering(member, servicer) as address:
        anna.links.dial(member.node_id, (address,), anna.member.identity)
        reason = await anna.heard.heard("dial_failed")
        await anna.quiet()
    assert says in reason


async def test_a_dial_that_is_not_answered_fails_in_time(mesh, pair, monkeypatch):
    monkeypatch.setattr(dialling, "DIAL_TIMEOUT_S", 0.2)
    anna, _ = pair
    member = mesh.node()
    async with answering(member, Answering()) as address:
        anna.links.dial(member.node_id, (address,), anna.member.identity)
        assert "no answer in 0.2 s" in await anna.heard.heard("dial_failed")
    assert anna.heard.stalled is True


async def test_a_machine_that_is_not_there_is_not_told_as_stalled(mesh, pair):
    anna, bert = pair
    await bert.server.stop(0)
    anna.dial(bert)
    await anna.heard.heard("dial_failed")
    assert anna.heard.stalled is False


async def test_garbage_from_a_dialled_peer_ends_the_link_and_nothing_escapes(mesh, pair):
    anna, _ = pair
    member, servicer = mesh.node(), Answering(INTRODUCED, pulse(1), b"\xff\xff\xff")
    async with answering(member, servicer) as address:
        anna.links.dial(member.node_id, (address,), anna.member.identity)
        await anna.heard.heard("unlinked")
        await anna.quiet()
    assert anna.heard.all("received") == [Pulse(1)]
    assert len(anna.heard.all("refused")) == 1
    assert anna.heard.all("dial_failed") == []  # it was a link, and has ended


async def test_a_dial_that_meets_an_error_tells_what_the_peer_said(mesh, pair):
    anna, bert = pair
    member = mesh.node()

    class Refusing(LinkServicer):
        def Link(self, request_iterator, context):
            raise links_module.PeerError("not today")

    server = await members_server(Refusing(bert.links), commands_grpc.CommandServiceServicer())
    async with serving(server, member.identity.for_members) as address:
        anna.links.dial(member.node_id, (address,), anna.member.identity)
        assert "not today" in await anna.heard.heard("dial_failed")
