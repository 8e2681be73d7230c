"""A node that has taken another's place says nothing until it knows what that one has counted."""

import pytest
from integration.node.ledgers import MOST, kept

from meshnode.core.feeds.feed import Replica
from meshnode.core.feeds.heads import Head
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key
from meshnode.core.ledger.ledger import LEDGER, Slot, SlotKey
from meshnode.core.ledger.ledger_rows import (
    key_from_row,
    key_to_row,
    replaced_in,
    replaced_to_row,
    slot_from_row,
    slot_to_row,
)
from meshnode.node.homes import joining
from meshnode.node.ledger import beside
from meshnode.node.ledger.beside import SAID, WAITING
from meshnode.store import elsewhere, facts, ledger

pytestmark = pytest.mark.integration
LOST = Key(bytes(range(32)))
LOST_ID = node_id_of(LOST.public)


@pytest.fixture
async def node(tmp_path, monkeypatch):
    async with kept(tmp_path, monkeypatch) as node:
        yield node


async def joined_for(node, node_id, seq=1) -> None:
    fact = elsewhere.replacing(node.mesh.genesis.mesh_id, node_id, Head(1, seq))
    await node.database.run(facts.remember, fact)


def hear_of(node, rows, key=LOST, replaces=(), flushes=1) -> None:
    """Let a node know the feed of one that is lost."""
    mesh = node.mesh
    feed = OwnFeed(key, mesh.genesis.mesh_id, mesh.genesis.limits, 1)
    for counter, slot in rows.items():
        feed.write(LEDGER, key_to_row(counter), slot_to_row(slot))
    for one in replaces:
        feed.write(LEDGER, replaced_to_row(one), SAID)
    for number in range(flushes):
        feed.write("sessions", b"key", bytes([number]))
        feed.flush(1.0)
    replica = Replica(feed.origin, mesh.genesis.limits)
    replica.replace(feed.header, feed.rows)
    mesh.replication.replicas[feed.origin] = replica


def counters_in(rows) -> dict:
    return {key: one for key, one in rows if isinstance(one, Slot) and one.records}


def named(node) -> list[str]:
    return replaced_in(node.mesh.own.keys(LEDGER))


def said(node) -> dict:
    values = node.mesh.own.values(LEDGER)
    rows = ((key_from_row(key), value) for key, value in values.items())
    return {key: slot_from_row(v) for key, v in rows if isinstance(key, SlotKey)}


def counted(node) -> dict:
    return {key: one for key, one in said(node).items() if one.records}


def returned(node, rows) -> None:
    """Give a node its own feed back, which leaves out what the lost one says."""
    mesh = node.mesh
    lost = OwnFeed(node.key, mesh.genesis.mesh_id, mesh.genesis.limits, 1)
    lost.write(LEDGER, replaced_to_row(LOST_ID), SAID)
    for key, slot in rows.items():
        lost.write(LEDGER, key_to_row(key), slot_to_row(slot))
    lost.flush(1.0)
    mesh.own.continue_after(lost.header, lost.rows)


async def test_nothing_is_said_until_the_feed_is_here_and_then_what_is_more(node):
    await joined_for(node, LOST_ID)
    ours = counters_in(await node.use("s", 3))
    await node.following.start([])
    await node.looked_again()
    assert (said(node), node.told) == ({}, [])
    (first, second, third) = ours
    hear_of(node, {first: ours[first], second: ours[second]})
    await node.looked_again()
    assert (said(node), named(node), node.told) == ({third: ours[third]}, [LOST_ID], [])
    node.following.publish(await node.use("t", 1))
    assert sum(one.records for one in said(node).values()) == 2


async def test_a_feed_that_is_behind_what_was_known_at_the_join_is_waited_for(node):
    await joined_for(node, LOST_ID, seq=9)
    ours = counters_in(await node.use("s", 1))
    hear_of(node, ours)
    await node.following.start([])
    await node.looked_again()
    assert (said(node), named(node)) == ({}, [])
    await joined_for(node, LOST_ID)
    await node.looked_again()
    assert (said(node), named(node)) == ({}, [LOST_ID])


async def test_those_are_left_out_too_whose_place_that_one_had_taken(node):
    older = Key(bytes(reversed(range(32))))
    older_id = node_id_of(older.public)
    ours = counters_in(await node.use("s", 3))
    (first, second, third) = ours
    await joined_for(node, LOST_ID)
    hear_of(node, {second: ours[second]}, replaces=[older_id, "nobody"])
    hear_of(node, {first: ours[first]}, key=older)
    await node.following.start([])
    await node.looked_again()
    assert said(node) == {third: ours[third]}
    assert sorted(named(node)) == sorted([LOST_ID, older_id])


async def test_what_was_said_before_is_said_no_more(node):
    ours = counters_in(await node.use("s", 2))
    await node.following.start([])
    await node.looked_again()
    assert said(node) == ours
    await joined_for(node, LOST_ID)
    (first, second) = ours
    hear_of(node, {first: ours[first]})
    node.following._rolling._beside = beside.Beside(node.ground)  # as after a start
    await node.looked_again()
    left = {key: one for key, one in said(node).items() if one.records}
    assert left == {second: ours[second]}


async def test_what_the_disk_has_lost_comes_back_beside_what_the_other_says(node):
    """Of a node that had taken another's place, and has lost disk and logs."""
    rows = counters_in(await node.use("s", 2))
    await node.database.run(lambda one: one.execute("DELETE FROM usage_slots").rowcount)
    (first, second) = rows
    hear_of(node, {first: rows[first]})
    returned(node, rows)
    await node.following.start([])
    await node.looked_again()
    assert said(node) == rows
    on_disk = counters_in(await node.database.run(ledger.published))
    assert on_disk == rows
    held = await node.database.run(elsewhere.rows_of, [first, second])
    assert held == {first: rows[first]}


async def test_what_is_heard_later_of_that_one_is_left_out_from_then_on(node):
    await joined_for(node, LOST_ID)
    ours = counters_in(await node.use("s", 3))
    (first, second, third) = ours
    hear_of(node, {first: ours[first]})
    await node.following.start([])
    await node.looked_again()
    assert said(node) == {key: ours[key] for key in (second, third)}
    hear_of(node, {first: ours[first], second: ours[second]}, flushes=2)
    await node.looked_again()
    assert counted(node) == {key: ours[key] for key in (second, third)}, "once in a while"
    node.clock.now_s += beside.AGAIN_S
    await node.looked_again()
    assert counted(node) == {third: ours[third]}


async def test_all_is_said_where_no_feed_comes_and_what_it_says_is_left_out_once_it_does(
    node, monkeypatch
):
    monkeypatch.setattr(beside, "PATIENCE_S", 0.0)
    await joined_for(node, LOST_ID)
    ours = counters_in(await node.use("s", 3))
    (first, second, third) = ours
    await node.following.start([])
    await node.looked_again()
    assert (said(node), named(node), node.told) == (ours, [], [WAITING])
    assert await node.database.run(elsewhere.is_settled, node.mesh.genesis.mesh_id)
    hear_of(node, {first: ours[first], second: ours[second]})
    await node.looked_again()
    assert (counted(node), named(node), node.told) == ({third: ours[third]}, [LOST_ID], [])


async def test_a_feed_that_comes_in_part_is_left_out_as_far_as_it_is_here(node, monkeypatch):
    monkeypatch.setattr(beside, "PATIENCE_S", 0.0)
    await joined_for(node, LOST_ID, seq=9)
    ours = counters_in(await node.use("s", 2))
    (first, second) = ours
    hear_of(node, {first: ours[first]})
    await node.following.start([])
    await node.looked_again()
    assert (counted(node), node.told) == ({second: ours[second]}, [WAITING])
    hear_of(node, ours, flushes=9)
    node.clock.now_s += beside.AGAIN_S
    await node.looked_again()
    assert (counted(node), node.told) == ({}, [])


async def test_after_a_start_a_feed_that_did_not_come_is_not_waited_for_again(node, monkeypatch):
    monkeypatch.setattr(beside, "PATIENCE_S", 0.0)
    await joined_for(node, LOST_ID)
    ours = counters_in(await node.use("s", 1))
    await node.following.start([])
    await node.looked_again()
    monkeypatch.setattr(beside, "PATIENCE_S", 60.0)
    node.following._rolling._beside = beside.Beside(node.ground)
    node.following.publish(more := await node.use("t", 1))
    await node.looked_again()
    assert (counted(node), node.told) == (ours | counters_in(more), [WAITING])


async def test_nobody_waits_for_a_forgotten_node_that_the_lost_one_names(node, monkeypatch):
    await joined_for(node, LOST_ID)
    ours = counters_in(await node.use("s", 2))
    (first, second) = ours
    monkeypatch.setattr(beside, "NODES_MAX", 3)
    gone = [f"gone-{number}" for number in range(3)]
    monkeypatch.setattr(type(node.mesh.control), "forgotten", dict.fromkeys(gone))
    hear_of(node, {first: ours[first]}, replaces=gone)
    await node.following.start([])
    await node.looked_again()
    assert (counted(node), named(node), node.told) == ({second: ours[second]}, [LOST_ID], [])


async def test_what_was_said_whole_is_not_taken_for_what_another_leaves_out(node):
    """A node in another's place lost its database, and reads its logs before peers return it."""
    rows = counters_in(await node.use("s", 3))
    (first, second, third) = rows
    await node.following.start([])
    await node.looked_again()
    assert said(node) == rows
    hear_of(node, {first: rows[first], second: rows[second]})
    returned(node, {third: rows[third]})
    await node.looked_again()
    assert (counted(node), named(node)) == ({third: rows[third]}, [LOST_ID])
    assert counters_in(await node.database.run(ledger.slots)) == rows


@pytest.mark.parametrize("has_logs", [True, False])
async def test_what_came_back_is_kept_though_the_other_feed_comes_later(
    node, monkeypatch, has_logs
):
    """It left out what the lost node's feed says, of whose ledger nothing is here."""
    monkeypatch.setattr(beside, "PATIENCE_S", 0.0)
    rows = counters_in(await node.use("s", 1))
    if has_logs:
        await node.use("s", 1)
    else:
        await node.database.run(lambda one: one.execute("DELETE FROM usage_slots").rowcount)
    returned(node, rows)
    await node.following.start([])
    await node.looked_again()
    assert node.told == [WAITING]
    hear_of(node, rows)
    await node.looked_again()
    assert (counted(node), node.told) == (rows, [])


async def test_who_had_left_and_joins_anew_in_nobodys_place_waits_for_nobody(node, monkeypatch):
    await joined_for(node, LOST_ID)
    mesh_id, self_id = node.mesh.genesis.mesh_id, node.mesh.self_id
    kept = joining._replacing(node.database, mesh_id, self_id, None)
    assert kept == elsewhere.replacing(mesh_id, LOST_ID, Head(1, 1)), "a member that is one again"
    monkeypatch.setattr(joining, "leaving_in", lambda _: b"1:1")
    await node.database.run(
        facts.remember, joining._replacing(node.database, mesh_id, self_id, None)
    )
    ours = counters_in(await node.use("s", 1))
    await node.following.start([])
    await node.looked_again()
    assert said(node) == ours


async def test_what_was_left_out_in_another_mesh_is_said_in_this_one(node):
    ours = counters_in(await node.use("s", 2))
    await node.database.run(elsewhere.keep, ours)
    await node.following.start([])
    await node.looked_again()
    assert said(node) == ours


async def test_a_feed_that_goes_while_it_is_taken_is_not_missed(node, monkeypatch):
    await joined_for(node, LOST_ID)
    ours = counters_in(await node.use("s", 1))
    hear_of(node, ours)
    told, replicas = node.following._rolling._beside, node.mesh.replication.replicas
    nodes = await told.look()
    replica = replicas.pop(LOST_ID)
    assert (nodes, await told.take(nodes, was_held=False)) == ({LOST_ID}, [])
    replicas[LOST_ID] = replica
    await node.following.start([])
    await node.looked_again()
    assert (counted(node), named(node)) == ({}, [LOST_ID])


async def test_a_feed_that_is_full_goes_on_when_the_other_ledger_comes(node, monkeypatch):
    monkeypatch.setattr(beside, "PATIENCE_S", 0.0)
    await joined_for(node, LOST_ID)
    ours = counters_in(await node.use("s", MOST))
    await node.following.start([])
    await node.looked_again()
    assert counted(node) == ours
    hear_of(node, dict(list(ours.items())[:2]))
    await node.looked_again()
    node.following._rolling._beside = beside.Beside(node.ground)  # as after a start
    async with node.following.counting():
        assert node.following._rolling.is_held, "though no row that names the other has room"
    assert counted(node) == dict(list(ours.items())[2:])
    assert (named(node), node.told) == ([], ["ledger"])
