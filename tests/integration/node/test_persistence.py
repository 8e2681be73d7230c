"""What a node publishes is on its disk first: a real database, and a second look at it."""

from itertools import count

import pytest
from integration.node.writers import GENESIS, ROOT, TABLE, values

from meshnode.core.control.entries import entry_id_of
from meshnode.core.feeds.feed import Replica
from meshnode.core.feeds.rows import Rows
from meshnode.node.homes import persistence
from meshnode.store import feeds


async def test_our_change_is_told_once_it_can_be_read_back(writers):
    async with writers.running():
        for number in range(20):
            writers.write(writers.ours, b"k", str(number).encode())
            await writers.told(number + 1)
            change, seen = writers.persisted[-1]
            assert values(seen[change.origin]) == {b"k": str(number).encode()}


async def test_changes_that_wait_together_are_told_in_order(writers):
    changes = [writers.write(writers.ours, b"k%d" % number, b"v") for number in range(50)]
    async with writers.running():
        await writers.told(50)
    assert [change for change, _ in writers.persisted] == changes


async def test_changes_of_others_are_stored_and_not_told(writers):
    other = writers.feed()
    async with writers.running():
        writers.write(other, b"k", b"v")
        await writers.drained()
    assert values(writers.on_disk()[other.origin]) == {b"k": b"v"}
    assert writers.persisted == []


async def test_what_belongs_to_a_flush_is_in_its_transaction(writers):
    seen = []

    def work(connection):
        connection.execute("INSERT INTO meta VALUES ('beside', x'01')")
        seen.append(values(writers.on_disk().get(writers.ours.origin, Rows())))

    async with writers.running():
        writers.write(writers.feed(), b"k", b"v")
        writers.writer.put_beside((TABLE, b"k"), work)
        await writers.drained()
        assert seen == []  # that was another's feed
        writers.write(writers.ours, b"k", b"v")
        await writers.told(1)
        writers.write(writers.ours, b"k", b"w")
        await writers.told(2)
    assert seen == [{}]  # both or neither: nobody else saw the flush yet
    query = "SELECT count(*) FROM meta WHERE key = 'beside'"
    assert writers.database.run_now(lambda connection: connection.execute(query).fetchone()) == (1,)


@pytest.mark.parametrize("is_written", [False, True])
async def test_what_belongs_to_a_flush_waits_for_it_behind_an_earlier_one(writers, is_written):
    seen, run = [], writers.database.run

    def put() -> None:
        writers.writer.put_beside((TABLE, b"k"), lambda _: seen.append(len(writers.persisted)))

    async def during(function, *args):
        writers.database.run = run
        put()
        return await run(function, *args)

    writers.write(writers.ours, b"k", b"early")
    if is_written:
        writers.database.run = during
    else:
        put()
    async with writers.running():
        await writers.told(1)
        assert seen == []
        writers.write(writers.ours, b"k", b"late")
        await writers.told(2)
        writers.write(writers.ours, b"k", b"later")
        await writers.told(3)
    assert seen == [1], "once, with the flush that came after it"


async def test_a_deletion_reaches_the_disk(writers):
    async with writers.running():
        writers.write(writers.ours, b"k", b"v")
        writers.write(writers.ours, b"k", None)
        await writers.drained()
    assert values(writers.on_disk()[writers.ours.origin]) == {}


async def test_a_snapshot_replaces_what_the_disk_had(writers):
    other = writers.feed()
    async with writers.running():
        writers.write(other, b"old", b"v")
        await writers.drained()
        other.write(TABLE, b"old", None)
        other.write(TABLE, b"new", b"v")
        other.flush(2.0)
        rows = Rows()
        rows.put(TABLE, b"new", other.rows.get(TABLE, b"new"))
        change = Replica(other.origin, GENESIS.limits).replace(other.header, rows)
        writers.writer.put(change, ours=False)
        await writers.drained()
    assert values(writers.on_disk()[other.origin]) == {b"new": b"v"}


async def test_control_entries_are_stored_once(writers):
    entry = ROOT.sign("control", {"kind": "new", "issuer": ROOT.public})
    async with writers.running():
        for _ in range(2):
            writers.writer.put_entry(entry)
        await writers.drained()
    assert writers.database.run_now(feeds.load).control == [entry]


async def test_a_dropped_entry_leaves_the_disk_and_one_that_returns_stays(writers):
    one, other = (ROOT.sign("control", {"kind": kind}) for kind in ("one", "other"))
    async with writers.running():
        for entry in (one, other):
            writers.writer.put_entry(entry)
        await writers.drained()
        writers.writer.drop_entries([entry_id_of(one), entry_id_of(other)])
        writers.writer.put_entry(other)
        await writers.drained()
    assert writers.database.run_now(feeds.load).control == [other]


async def test_what_comes_during_a_write_keeps_nobody_waiting_for_what_was_planned_before(writers):
    entry = ROOT.sign("control", {"kind": "new"})
    other, run, numbers = writers.feed(), writers.database.run, count()

    async def busy(function, *args):
        writers.write(other, b"k", b"%d" % next(numbers))
        return await run(function, *args)

    writers.database.run = busy
    async with writers.running():
        writers.write(other, b"k", b"first")
        writers.writer.put_entry(entry)
        await writers.drained()
    assert writers.database.run_now(feeds.load).control == [entry]


async def test_more_changes_than_may_wait_collapse_and_nothing_is_lost(writers, monkeypatch):
    monkeypatch.setattr(persistence, "PENDING_MAX", 10)
    others = [writers.feed() for _ in range(3)]
    for number in range(40):
        for other in others:
            writers.write(other, b"k%d" % (number % 7), b"%d" % number)
        if number % 10 == 0:
            writers.write(writers.ours, b"%d" % number, b"ours")
    assert len(writers.writer._changes) <= 10 + 4  # ours always wait in full
    async with writers.running():
        await writers.drained()
        assert len(writers.persisted) == 4
        disk = writers.on_disk()
        for feed in (*others, writers.ours):
            assert disk[feed.origin].state_hash() == feed.header.state_hash
        writers.write(others[0], b"later", b"v")  # and changes are stored one by one again
        await writers.drained()
    assert values(writers.on_disk()[others[0].origin])[b"later"] == b"v"
