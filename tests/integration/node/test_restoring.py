"""What a disk has changed is found when it is read, left out and told; what is ours goes on."""

import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest
from integration.rpc.fleet import Founded
from msgspec.structs import replace

from meshnode.app.audit.alarms import Alarms
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.core.control.entries import Forget, entry_id_of, role_entry, sign_entry
from meshnode.core.control.roles import Role
from meshnode.core.errors import DamagedError, MeshError, StorageError
from meshnode.core.feeds.feed import fits
from meshnode.core.feeds.heads import Head
from meshnode.core.feeds.messages import Snapshot
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.rows import all_rows
from meshnode.core.feeds.snapshots import whole
from meshnode.core.keys import Key
from meshnode.core.ledger.ledger import LEDGER
from meshnode.core.membership.genesis import Limits
from meshnode.core.sessions.sessions import SESSIONS
from meshnode.node.homes.restoring import Damage, move, repair, restore, take_up
from meshnode.store import facts, feeds, forks, rollups
from meshnode.store.database import Database

FOUNDED = Founded(9)
GENESIS = FOUNDED.genesis
CHANCE = Random(3).randbytes
US, *OTHERS = [Key.new(CHANCE) for _ in range(4)]
OPERATORS = [Key.new(CHANCE).public for _ in range(3)]
STARTED = ("links", b"")
FLIPS = 150


def feed_of(key: Key, rows: int = 12) -> OwnFeed:
    """Write a feed of some flushes."""
    feed = OwnFeed(key, GENESIS.mesh_id, GENESIS.limits, 7)
    for number in range(rows):
        feed.write(SESSIONS if number % 2 else "node", b"key %d" % number, b"value %d" % number)
        if number % 3 == 0:
            feed.flush(1.0)
    feed.flush(2.0)
    return feed


def entry_for(operator: bytes):
    role = Role(operator, "admin", "anna", FOUNDED.root.public, 1, None)
    return role_entry(FOUNDED.root, GENESIS.mesh_id, role, CHANCE)


FEEDS = {feed.origin: feed for feed in map(feed_of, (US, *OTHERS))}
OURS = next(iter(FEEDS))
ANNA, BERTA, CARL = list(FEEDS)[1:]
ENTRIES = [entry_for(operator) for operator in OPERATORS]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with our feed, three others' and three entries."""
    path = tmp_path / "state.db"
    database = Database(path)
    whole = [
        replace(feed_of(key).replace(feed.header, feed.rows), flush=None)
        for key, feed in zip((US, *OTHERS), FEEDS.values(), strict=True)
    ]
    database.run_now(feeds.save, whole, ENTRIES)
    database.close()
    return path


def spoil(path: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement, values).rowcount > 0


class Started:
    """What a node takes up from a disk, and makes of it."""

    def __init__(self, path: Path) -> None:
        self.mesh = Mesh(GENESIS, Self(US, 8, Random(1)))
        self._database = Database(path)
        try:
            self.damage: Damage = restore(self.mesh, self._database, 1_790_000_000.0)
        except MeshError:
            self.close()
            raise

    def repair(self) -> None:
        repair(self.mesh, self._database, self.damage)

    def flush(self) -> None:
        """Write what waits, and what every node writes at its start, and keep it."""
        self.mesh.own.write(*STARTED, b"9")
        while self.mesh.own.waiting:
            self._database.run_now(feeds.save, [self.mesh.own.flush(9.0)], [])

    def close(self) -> None:
        self._database.close()

    @property
    def taken(self) -> set[str]:
        return {o for o, replica in self.mesh.replication.replicas.items() if replica.header}


@pytest.fixture
def start(path):
    """Start on the disk as it is then; everything is closed at the end."""
    running = []

    def begin() -> Started:
        stop()
        running.append(Started(path))
        return running[0]

    def stop() -> None:
        while running:
            running.pop().close()

    begin.stop = stop
    yield begin
    stop()


def values(rows) -> dict[tuple[str, bytes], bytes]:
    return {place: row.value for place, row in all_rows(rows).items() if place != STARTED}


def test_a_sound_disk_is_taken_up_whole(start):
    started = start()
    assert not started.damage
    assert started.taken == set(FEEDS)
    assert len(started.mesh.control.entries()) == len(ENTRIES)
    assert started.mesh.own.head == FEEDS[OURS].head


ROW_DAMAGE = [
    "UPDATE rows SET value = X'00' WHERE origin = ? AND key = CAST('key 3' AS BLOB)",
    "UPDATE rows SET epoch = -1 WHERE origin = ?",
    "UPDATE rows SET epoch = 9223372036854775807 WHERE origin = ? AND key = X'6B65792033'",
    "UPDATE rows SET seq = 0 WHERE origin = ?",
    "UPDATE rows SET seq = 'many' WHERE origin = ? AND key = X'6B65792033'",
    "UPDATE rows SET seq = 2.5 WHERE origin = ? AND key = X'6B65792033'",
    "UPDATE rows SET tab = 'registry' WHERE origin = ? AND key = X'6B65792033'",
    "UPDATE rows SET tab = CAST(X'FFFE' AS TEXT) WHERE origin = ? AND key = X'6B65792033'",
    "UPDATE rows SET key = 'a text' WHERE origin = ? AND key = X'6B65792033'",
    "UPDATE rows SET value = 'a text' WHERE origin = ? AND key = X'6B65792033'",
    "DELETE FROM rows WHERE origin = ? AND key = X'6B65792033'",
    "UPDATE rows SET origin = CAST(X'FFFE' AS TEXT) WHERE origin = ? AND key = X'6B65792033'",
]
HEADER_DAMAGE = [
    "UPDATE feeds SET payload = X'00' WHERE origin = ?",
    "UPDATE feeds SET signature = zeroblob(64) WHERE origin = ?",
    "UPDATE feeds SET signature = 'a text' WHERE origin = ?",
    "UPDATE feeds SET payload = substr(payload, 1, length(payload) - 1) || X'01' WHERE origin = ?",
    "UPDATE feeds SET origin = CAST(X'FFFE' AS TEXT) WHERE origin = ?",
    "UPDATE feeds SET origin = 'somebody' WHERE origin = ?",
]


@pytest.mark.parametrize("is_forgotten", [False, True])
def test_a_feed_with_two_histories_is_an_alarm_unless_its_node_is_forgotten(path, is_forgotten):
    proof = FEEDS[ANNA].header, feed_of(OTHERS[0], rows=13).header
    forget = sign_entry(FOUNDED.root, GENESIS.mesh_id, Forget(proof[0]), CHANCE, issued_s=1)
    database = Database(path)
    database.run_now(forks.save, proof)
    database.run_now(feeds.save, [], [forget] * is_forgotten)
    world = SimpleNamespace(mesh=Mesh(GENESIS, Self(US, 8, Random(1))))
    alarms = Alarms(lambda: 0.0, lambda _alarm, _raised: None)
    take_up(world, database, alarms, (), 1_790_000_000.0)
    database.close()
    assert world.mesh.replication.forks.has(ANNA)
    assert [one.id for one in alarms.standing()] == [f"feed:{ANNA[:12]}"] * (not is_forgotten)


@pytest.mark.parametrize("statement", [*ROW_DAMAGE, *HEADER_DAMAGE])
def test_a_damaged_feed_is_left_out_told_and_made_room_for(path, start, statement):
    spoil(path, statement, ANNA)
    started = start()
    assert started.taken == {OURS, BERTA, CARL}
    assert "feeds of others: 1" in started.damage.summary
    (alarm,) = started.damage.alarms()
    assert alarm.id.startswith("feed:")
    assert not alarm.stops_writes
    assert start().damage, "reading alone changes nothing"
    start().repair()
    again = start()
    assert not again.damage
    assert again.taken == {OURS, BERTA, CARL}
    whole = replace(FEEDS[ANNA].replace(FEEDS[ANNA].header, FEEDS[ANNA].rows), flush=None)
    again._database.run_now(feeds.save, [whole], [])
    assert start().taken == set(FEEDS)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE control SET payload = X'00' WHERE id = ?",
        "UPDATE control SET signature = zeroblob(64) WHERE id = ?",
        "UPDATE control SET type = 'flush' WHERE id = ?",
        "UPDATE control SET type = CAST(X'FFFE' AS TEXT) WHERE id = ?",
        "UPDATE control SET payload = 5 WHERE id = ?",
    ],
)
def test_a_damaged_control_entry_is_left_out_told_and_made_room_for(path, start, statement):
    spoil(path, statement, entry_id_of(ENTRIES[1]))
    started = start()
    assert len(started.mesh.control.entries()) == 2
    assert [alarm.id for alarm in started.damage.alarms()] == ["control_set"]
    started.repair()
    again = start()
    assert not again.damage
    again._database.run_now(feeds.save, [], ENTRIES)
    assert len(start().mesh.control.entries()) == 3


@pytest.mark.parametrize("statement", [*ROW_DAMAGE, *HEADER_DAMAGE])
def test_our_own_damaged_feed_goes_on_above_its_history_with_all_that_is_intact(
    path, start, statement
):
    spoil(path, statement, OURS)
    started = start()
    assert [alarm.id for alarm in started.damage.alarms() if alarm.id == "own_feed"]
    started.repair()
    started = start()  # a crash before the first flush finds what the repair has left
    assert started.damage.own is not None
    started.flush()
    assert started.mesh.own.head.epoch > FEEDS[OURS].head.epoch
    kept, whole = values(started.mesh.own.rows), values(FEEDS[OURS].rows)
    assert kept.items() <= whole.items()
    if "key = " in statement:
        assert len(kept) == len(whole) - 1
    again = start()
    assert not again.damage
    assert values(again.mesh.own.rows) == kept


def test_peers_return_what_our_own_disk_has_damaged(path, start):
    spoil(path, ROW_DAMAGE[0], OURS)
    started = start()
    started.repair()
    started.flush()
    place = (SESSIONS, b"key 3")
    assert place not in values(started.mesh.own.rows)
    ours = FEEDS[OURS]
    returned = whole(ours.header, ours.rows)
    assert isinstance(returned, Snapshot)
    started.mesh.replication.on_snapshot(ANNA, returned, 1.0)
    started.flush()
    assert values(started.mesh.own.rows) == values(ours.rows)
    assert started.mesh.own.head > Head(ours.head.epoch + 1, 0)


def test_a_bit_that_flips_anywhere_is_never_believed_and_never_a_crash(path, start):
    content, chance = path.read_bytes(), Random(8)
    used = [place for place, byte in enumerate(content) if byte]  # most of a new file is empty
    refused = found = 0
    for _ in range(FLIPS):
        place, bit = chance.choice(used), 1 << chance.randrange(8)
        spoiled = bytearray(content)
        spoiled[place] ^= bit
        start.stop()
        for log in path.parent.glob(f"{path.name}-*"):  # of the disk before
            log.unlink()
        path.write_bytes(spoiled)
        try:
            started = start()
        except DamagedError:
            refused += 1
            continue
        for origin in started.taken:
            assert all_rows(started.mesh.replication.replicas[origin].rows) == all_rows(
                FEEDS[origin].rows
            )
        known = {entry.hash for entry in ENTRIES}
        assert {entry.hash for entry in started.mesh.control.entries()} <= known
        found += bool(started.damage)
        if started.damage:
            started.repair()
            started.flush()
            assert not start().damage
    assert found > FLIPS // 20
    assert refused < FLIPS // 2


SMALL = Limits(row_bytes_max=2000, feed_bytes_max=106_000)


@pytest.fixture
def overfull(tmp_path: Path) -> Path:
    """A database whose feed of ours no peer takes, as an earlier version has written it."""
    feed = OwnFeed(US, GENESIS.mesh_id, GENESIS.limits, 7)
    for table, count in ((LEDGER, 120), (SESSIONS, 3)):
        for number in range(count):
            feed.write(table, b"%d" % number, bytes(1000))
    feed.write(*STARTED, b"1")
    while feed.waiting:
        feed.flush(1.0)
    path = tmp_path / "state.db"
    with closing(Database(path)) as database:
        whole = replace(feed_of(US).replace(feed.header, feed.rows), flush=None)
        database.run_now(feeds.save, [whole], [])
        held = rollups.held_at(GENESIS.mesh_id, 1)
        database.run_now(facts.remember, {rollups.HELD: held})
    return path


def healed(path: Path, boot: int) -> tuple[OwnFeed, bytes | None]:
    """Start on a disk; return our feed, and at which epoch the ledger was held against it."""
    genesis = SimpleNamespace(mesh_id=GENESIS.mesh_id, limits=SMALL, root_keys=GENESIS.root_keys)
    mesh = Mesh(genesis, Self(US, boot, Random(1)))
    with closing(Database(path)) as database:
        damage = restore(mesh, database, 1_790_000_000.0)
        assert not damage
        move(mesh, database, damage, 9.0)
        return mesh.own, database.run_now(facts.recall, rollups.HELD)


def test_a_feed_that_no_peer_takes_is_signed_anew_with_what_has_room(overfull: Path):
    own, held_at = healed(overfull, 8)
    assert fits(own.rows, SMALL)
    assert own.left_out == 120 - len(own.keys(LEDGER)) > 0
    assert len(own.keys(SESSIONS)) == 3
    assert (own.header.epoch, own.waiting) == (2, False)
    assert held_at == rollups.held_at(GENESIS.mesh_id, 2), "what was corrected is no loss"
    again, held_at = healed(overfull, 9)
    assert values(again.rows) == values(own.rows)
    assert (again.header, again.left_out) == (own.header, 0)
    assert held_at == rollups.held_at(GENESIS.mesh_id, 2)


def test_a_disk_that_fails_meanwhile_keeps_the_feed_that_no_peer_takes(overfull, monkeypatch):
    def full(*_: object) -> None:
        raise StorageError("no space is left")

    with monkeypatch.context() as patched:
        patched.setattr(feeds, "save", full)
        with pytest.raises(StorageError):
            healed(overfull, 8)
    own, _ = healed(overfull, 9)
    assert (own.header.epoch, own.header.boot) == (2, 9)
    assert fits(own.rows, SMALL)
