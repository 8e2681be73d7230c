"""Attacks on the audit log: on its size, on its words, and on who reads it."""

import asyncio
from random import Random
from types import SimpleNamespace

import pytest
from auditing import AT_MS, GENESIS, NODE, NOW_S, OTHER, SESSION, Desk, chance, granted
from msgspec.structs import replace

from meshnode.app.audit.auditing import WINDOW_S, Happening
from meshnode.app.commands.quotas import OF_PEER, OF_SIGNER
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.app.sessions.sessions import Done
from meshnode.core.commands.audit import start_hash
from meshnode.core.commands.standing import REVOKED
from meshnode.core.commands.standing import Standing as Order
from meshnode.core.control.entries import StandingKill
from meshnode.core.control.grants import KeyTimeError
from meshnode.core.errors import (
    ExhaustedError,
    ExpiredError,
    MeshError,
    NotAuthenticatedError,
    NotPermittedError,
    RefusedError,
    StaleError,
)
from meshnode.core.floor import SKEW_S
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Signed, key_id_of
from meshnode.core.packing import pack, unpack_map
from meshnode.node.sessions.standing import Standing
from meshnode.store import audit

# Its size.


async def refused(desk: Desk, signed: Signed, kind: type[MeshError]) -> None:
    with pytest.raises(kind):
        await desk.desk.submit(signed, "n" * 52)


async def test_a_flood_of_forged_commands_leaves_one_record_and_a_count():
    desk = Desk()
    genuine = desk.order()
    for number in range(3000):
        forged = replace(genuine, signature=number.to_bytes(64, "big"))
        desk.clock.now_s += 1 / OF_PEER.per_s  # as fast as one peer is listened to
        await refused(desk, forged, NotAuthenticatedError)
    assert desk.kinds() == ["command_refused"]
    assert desk.records[0].actor == ""  # nobody is blamed for what was not proved
    desk.clock.now_s += WINDOW_S
    desk.auditor.tick()
    assert [one.detail for one in desk.records[1:]] == ["2999 more like it"]
    assert len(desk.lines) == 2  # in the node's log too
    assert desk.agents.steered == []


@pytest.mark.parametrize(
    ("late_s", "times", "kind"),
    [
        (60 + SKEW_S + 1, {"expires": NOW_S + 300}, KeyTimeError),
        (1, {"issued": 1, "expires": 2}, ExpiredError),
    ],
    ids=["expired key", "expired command"],
)
async def test_a_flood_of_forgeries_under_the_id_of_a_command_blames_nobody(late_s, times, kind):
    desk = Desk()
    genuine = desk.order(key=granted(expires_s=NOW_S + 60))
    await desk.desk.submit(genuine, "")
    desk.clock.now_s += late_s
    proved = len(desk.records)
    for number in range(40):
        said = unpack_map(genuine.payload) | {"args": {"message": str(number)}} | times
        await refused(desk, Signed("command", pack(said), bytes(64)), kind)
    assert desk.kinds()[proved:] == ["command_refused"]
    assert desk.records[-1].actor == ""
    assert len(desk.agents.steered) == 1


async def test_a_flood_of_garbage_leaves_one_record():
    desk = Desk()
    for number in range(500):
        await refused(desk, Signed("command", chance(number), bytes(64)), MeshError)
    assert len(desk.records) == 1
    assert not desk.journal.begun


async def test_a_thief_of_a_key_fills_a_share_and_is_counted_beyond_it():
    desk = Desk()
    key = granted(actions=("read",))
    for _ in range(300):
        await refused(desk, desk.order(key=key), NotPermittedError)
    assert len(desk.records) == 20
    assert len({one.actor for one in desk.records} - {""}) == 1
    await refused(desk, desk.order(epoch=1), StaleError)
    assert desk.agents.steered == []


async def test_commands_for_which_there_is_no_room_leave_one_record_and_a_count():
    """A key for one steer, whose agent hangs: each was recorded as accepted, 500 a second."""
    desk = Desk()
    desk.agents.gate = asyncio.Event()
    key = granted(actions=("steer",))
    waiting = [asyncio.create_task(desk.desk.submit(desk.order(key=key), "")) for _ in range(32)]
    await desk.agents.reached.wait()
    taken = len(desk.records)
    for _ in range(300):
        await refused(desk, desk.order(key=key), ExhaustedError)
    assert desk.kinds()[taken:] == ["command_refused"]
    assert desk.kinds()[:taken] == ["command_accepted"] * 32
    desk.agents.gate.set()
    await asyncio.gather(*waiting)


async def test_commands_beyond_a_quota_leave_one_record_and_a_count():
    desk = Desk()
    signed = [desk.order() for _ in range(OF_SIGNER.burst + 50)]
    for one in signed[: OF_SIGNER.burst]:
        await desk.desk.submit(one, "")
    taken = len(desk.records)
    for one in signed[OF_SIGNER.burst :]:
        await refused(desk, one, RefusedError)
    assert desk.kinds()[taken:] == ["command_refused"]


async def test_a_command_that_an_earlier_run_has_answered_is_not_recorded_again():
    desk = Desk()
    signed = desk.order()
    receipt = await desk.desk.submit(signed, "")
    again = Desk(desk.journal)
    assert await again.desk.submit(signed, "") == receipt
    assert again.kinds() == []
    again.clock.now_s += SKEW_S + 1
    await again.desk.submit(again.order(), "")
    assert again.kinds() == ["command_accepted", "command_executed"]


async def test_a_replayed_command_is_recorded_once():
    desk = Desk()
    signed = desk.order()
    receipts = {(await desk.desk.submit(signed, "")).hash for _ in range(200)}
    assert len(receipts) == 1
    assert desk.kinds() == ["command_accepted", "command_executed"]
    assert len(desk.agents.steered) == 1


def test_a_flood_of_void_orders_leaves_a_share_and_a_count():
    desk = Desk()
    world = SimpleNamespace(mesh=Mesh(GENESIS, Self(NODE, 1, Random(1))), on_entry=[])
    ground = SimpleNamespace(world=world, database=None, clock=desk.clock, spawn=None)
    hosting = SimpleNamespace(agents_found=None, sessions=None)
    standing = Standing(ground, hosting, None, desk.auditor)
    kill = StandingKill(agent="builder")
    for number in range(300):
        order = Order(number.to_bytes(16, "big"), OTHER.public, 1, 2, kill)
        standing._tell(order, None, Done("refused", REVOKED))
    assert desk.kinds() == ["standing_kill"] * 20
    assert (desk.records[0].agent, desk.records[0].actor) == ("builder", key_id_of(OTHER.public))
    for _ in range(30):
        standing._tell(order, SESSION, Done("applied"))  # of whom they met, each is told
    assert len(desk.records) == 50
    desk.clock.now_s += WINDOW_S
    desk.auditor.tick()
    assert [one.detail for one in desk.records[50:]] == ["280 more like it"]


def test_a_flood_of_joiners_leaves_one_record():
    desk = Desk()
    for _ in range(1000):
        desk.auditor.admission("join_refused", b"", "the invite's secret is wrong")
    assert desk.kinds() == ["join_refused"]


def test_a_disk_that_takes_nothing_hides_nothing_but_says_how_much_it_lost(log):
    for _ in range(audit.WAITING_MAX + 5):
        log.rider.put(audit.Noted(AT_MS, {"kind": "while_full"}))
    while log.rider.waiting:
        log.database.run_now(audit.write_waiting)
    lost = [one.record for one in log.kept() if one.record.kind == audit.LOST]
    assert [record.detail for record in lost] == ["5, while the disk took none"]
    assert log.verdict(log.head()) is None


def test_old_records_make_room_and_the_rest_still_proves_itself(log, monkeypatch):
    monkeypatch.setattr(audit, "RECORDS_MAX", 50)
    monkeypatch.setattr(audit, "DROPPED_AT_ONCE", 10)
    early = log.head()
    log.note(*["flood"] * 200)
    kept = log.kept()
    assert len(kept) <= 51
    assert kept[0].seq > 100
    assert log.verdict(early, log.head()) is None
    log.edit(f"DELETE FROM audit WHERE seq = {kept[0].seq}")
    assert log.verdict().seq == kept[0].seq


# What it says, and to whom.


def test_words_of_others_are_cut_to_their_bounds(log):
    log.note("k" * 500, agent="\x1b[31m" + "a" * 9000, detail="\ud800" * 9000, actor="x" * 900)
    record = log.kept()[-1].record
    assert (len(record.kind), len(record.agent), len(record.detail)) == (64, 256, 512)
    assert log.verdict(log.head()) is None


async def test_what_was_said_to_an_agent_is_recorded_nowhere():
    desk = Desk()
    await desk.desk.submit(desk.order(), "")
    assert desk.agents.steered == [(SESSION.session_id, None, "the words of a user")]
    for happening in (*desk.records, *desk.lines):
        assert isinstance(happening, Happening)
        assert "words of a user" not in repr(happening)


def test_a_key_narrowed_to_some_agents_does_not_read_the_log_of_a_node():
    desk = Desk()
    now_s = desk.clock.now_s
    for narrow in ({"agents": ("builder",)}, {"specializations": ("x",)}, {"actions": ("steer",)}):
        signed = desk.order("read_audit", key=granted(**narrow))
        with pytest.raises(NotPermittedError):
            desk.court.judge(signed, None, "", now_s)
    assert desk.records == []
    desk.court.judge(desk.order("read_audit"), None, "", now_s)
    assert desk.kinds() == ["audit_read"]


def test_a_log_cannot_be_read_with_a_request_for_another_node_or_an_old_one():
    desk = Desk()
    other = desk.order("read_audit", node=node_id_of(OTHER.public))
    old = desk.order("read_audit", epoch=8)
    for signed, kind in ((other, MeshError), (old, StaleError)):
        with pytest.raises(kind):
            desk.court.judge(signed, None, "", desk.clock.now_s)
    assert desk.records == []


def test_a_chain_starts_at_its_node_and_number_only():
    assert len({start_hash(key, log) for key in (NODE.public, OTHER.public) for log in (1, 2)}) == 4
