"""Homes keep whom they were told of when they joined, whatever an admitter says there."""

import asyncio
from contextlib import closing

import pytest
from integration.client.service import short_home
from integration.node.test_ending import running
from integration.rpc.enrolling import Desk, answering
from integration.rpc.fleet import Founded
from viewing import Viewer

from meshnode.app.membership.introduced import INTRODUCED_MAX
from meshnode.client.home import Home
from meshnode.core.errors import NotFoundError, StorageError
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key
from meshnode.core.membership.members import NAME_CHARS_MAX
from meshnode.core.tables.tables import ID_CHARS
from meshnode.node.doctor.doctor import examine
from meshnode.node.homes.founding import found
from meshnode.node.homes.introducing import (
    INTRODUCED_FACT,
    SEEDS_FACT,
    checked,
    dismiss,
    fact_of,
    introduced_in,
)
from meshnode.node.homes.joining import join
from meshnode.node.offline import OfflineMesh
from meshnode.store import facts
from meshnode.store.database import Database


@pytest.fixture
async def desk(database):
    desk = Desk(Founded(), database)
    async with answering(desk.servicer(), desk.member.identity) as address:
        yield desk, address


def coverage(home: Home) -> dict:
    with OfflineMesh(home) as mesh:
        return mesh.nodes()["coverage"]


async def joined(desk: Desk, address: str, path) -> Home:
    invite = await desk.invite(address)
    home = Home(path)
    await asyncio.to_thread(join, home, invite.to_text())
    return home


async def test_an_admitter_of_before_names_itself_by_its_id_alone(desk, tmp_path):
    host, address = desk
    said = coverage(await joined(host, address, tmp_path / "h"))
    assert (said["nodes_known"], said["nodes_heard"]) == (1, 0)
    assert [one["node_name"] for one in said["missing"]] == [host.member.node_id[:ID_CHARS]]


async def test_doctor_looks_for_an_admitter_where_the_node_will_dial_it(desk, tmp_path):
    host, address = desk
    host.desk.addresses = lambda: ("127.0.0.1:1",)  # nobody listens on this port of the loopback
    home = await joined(host, address, tmp_path / "h")
    (check,) = [one for one in await asyncio.to_thread(examine, home) if "peer_" in one.id]
    assert "127.0.0.1:1 refuses connections" in check.detail
    assert "start the node on that machine" in check.fix


async def test_whom_an_admitter_names_is_awaited_by_that_name(desk, tmp_path):
    host, address = desk
    other = node_id_of(Key.new(lambda size: b"k" * size).public)
    host.desk.members = lambda _joiner: {host.member.node_id: "anna", other: "carl"}
    said = coverage(await joined(host, address, tmp_path / "h"))
    assert sorted(one["node_name"] for one in said["missing"]) == ["anna", "carl"]


async def test_who_could_not_be_dropped_for_want_of_a_disk_is_dropped_when_asked_again(database):
    node = node_id_of(Key.new(lambda size: b"k" * size).public)
    database.run_now(facts.remember, fact_of({node: "carl"}))
    introduced = introduced_in(database, Viewer().mesh)
    database.run_now(lambda disk: disk.execute("PRAGMA query_only = 1"))
    with pytest.raises(StorageError):
        await dismiss(database, introduced, node)
    assert introduced.awaited() == {node: "carl"}
    database.run_now(lambda disk: disk.execute("PRAGMA query_only = 0"))
    await dismiss(database, introduced, node)
    assert introduced.awaited() == introduced_in(database, Viewer().mesh).awaited() == {}
    with pytest.raises(NotFoundError):
        await dismiss(database, introduced, node)


@pytest.mark.parametrize("broken", [INTRODUCED_FACT, SEEDS_FACT])
async def test_what_is_broken_of_whom_a_home_waits_for_keeps_it_from_no_answer(
    desk, tmp_path, broken
):
    home = await joined(*desk, tmp_path / "h")
    with closing(Database(home.database)) as database:
        database.run_now(facts.remember, {broken: b"{"})
    known = 1 if broken == SEEDS_FACT else 0
    assert coverage(home)["nodes_known"] == known


async def test_what_is_broken_of_whom_a_home_waits_for_keeps_it_from_no_start():
    with short_home() as home:
        found(home, None, "anna", None)
        with closing(Database(home.database)) as database:
            database.run_now(facts.remember, {INTRODUCED_FACT: b"{"})
        async with running(home) as node:
            assert node._queries.introduced.awaited() == {}
            node.ask_to_stop()


def test_what_is_no_member_or_too_much_is_not_awaited():
    ids = [
        node_id_of(Key.new(lambda size, n=n: bytes([n % 251, n // 251]) * 16).public)
        for n in range(INTRODUCED_MAX + 3)
    ]
    assert len(checked(dict.fromkeys(ids, "a"))) == INTRODUCED_MAX
    assert checked({"": "a", "x" * 52: "b", "abc": "c"}) == {}
    assert checked({ids[0]: "n" * 1000}) == {ids[0]: "n" * NAME_CHARS_MAX}
