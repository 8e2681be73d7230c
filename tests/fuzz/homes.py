"""What a node reads from its own machine: its disk, its files, its socket, the network around it.

A disk may hold anything: bits flip. A user may write anything. Neither ends a node without words.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from atexit import register
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from doubles import ManualClock
from fuzz.meshes import prices
from fuzz.values import GENESIS, NODE, NODE_ID, READER, ROOT
from zeroconf.asyncio import AsyncServiceInfo

from meshnode.agents.following import Following, Line, ending_of
from meshnode.agents.inbox import Inbox
from meshnode.agents.inbox_reader import answer_of, page_of
from meshnode.agents.steering import steer_line
from meshnode.agents.supervisor import Supervisor
from meshnode.app.events.events import KEPT_S, EventLog
from meshnode.app.events.watching import Watching
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.app.ports import JournalEntry
from meshnode.app.queries.queries import Queries
from meshnode.client import errors as client_errors
from meshnode.client.commands import outbox
from meshnode.client.commands.registrations import registrations_in
from meshnode.client.documents import parse_document
from meshnode.client.home import Home
from meshnode.client.keys.keyfiles import read_secret
from meshnode.client.targets.targets import Order
from meshnode.core.commands.commands import command_from_signed
from meshnode.core.errors import DamagedError, MeshError, PeerError
from meshnode.core.ids import node_id_of
from meshnode.core.ledger.ledger_rows import key_to_row, value_to_row
from meshnode.core.membership.certificates import leads_to_root
from meshnode.core.membership.enrolment import join_proof
from meshnode.core.packing import typed, unpack
from meshnode.discovery.mdns import SERVICE, Discovery
from meshnode.node.audit.eventing import left_from
from meshnode.node.configuration.config import load_config
from meshnode.node.homes.entering import finish
from meshnode.node.homes.founding import beginning, read_genesis, recover
from meshnode.node.homes.membership import membership_in
from meshnode.node.homes.restoring import restore
from meshnode.rpc import errors as rpc_errors
from meshnode.rpc.control import add_control, read_head
from meshnode.rpc.cost import query_from_wire
from meshnode.rpc.events import history_from_wire, kept_events
from meshnode.rpc.local import _owner, find_agents, get_cost, list_nodes, list_sessions, name_member
from meshnode.store import events, facts, feeds, invites, journal, ledger, rollups, usage_log
from meshnode.store.faults import damaged, is_of_the_disk
from meshnode.store.migrations import migrate
from meshnode.v1 import event_service_pb2 as event_pb
from meshnode.v1 import local_service_pb2 as local
from meshnode.wire.signed import signed_from_wire, signed_to_wire

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS_MAX = 16  # of one spoilt database


@cache
def place() -> Path:
    """A private directory that goes when the process does."""
    directory = TemporaryDirectory(prefix="fuzz-")
    register(directory.cleanup)
    Path(directory.name).chmod(0o700)
    return Path(directory.name)


def written(name: str, raw: bytes) -> Path:
    path = place() / name
    path.parent.mkdir(exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    path.write_bytes(raw)
    return path


class Disk:
    """A database in memory that fails as the one on disk does."""

    def __init__(self) -> None:
        self.path = place() / "state.db"
        self._connection = sqlite3.connect(":memory:", isolation_level=None)
        migrate(self._connection)

    def run_now(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(self._connection, *args)
        except sqlite3.Error as error:
            if not is_of_the_disk(error):
                raise
            raise damaged(self.path, str(error)) from error

    def put(self, table: str, values: list[object]) -> None:
        """Write a row as a flipped bit may leave it: a map {"": bytes} is a text of any bytes."""
        columns = [name for _, name, *_ in self._connection.execute(f"PRAGMA table_info({table})")]
        written = f"{table} ({', '.join(columns[: len(values)])})"  # as an older version did, too
        marks = ", ".join("CAST(? AS TEXT)" if isinstance(one, dict) else "?" for one in values)
        flat = [one.get("", b"") if isinstance(one, dict) else one for one in values]
        try:
            self._connection.execute(f"INSERT OR REPLACE INTO {written} VALUES ({marks})", flat)
        except (sqlite3.Error, OverflowError) as error:
            raise PeerError("no disk holds that") from error

    def close(self) -> None:
        self._connection.close()


TABLES = {
    *("feeds", "rows", "control", "forks"),
    *("events", "journal", "invites", "meta", "usage_readers", "usage_places"),
    *("usage_slots", "usage_imported", "usage_elsewhere", "usage_kinds", "usage_log"),
}


def database(raw: bytes) -> str:
    """Start from spoilt tables: MessagePack of [[table, [column, ...]], ...]."""
    disk = Disk()
    try:
        for table, values in _spoilt(raw):
            disk.put(table, values)
        return started(disk)
    finally:
        disk.close()


def _spoilt(raw: bytes) -> list[tuple[str, list[object]]]:
    try:
        rows = [(table, typed(values, list)) for table, values in typed(unpack(raw), list)]
    except (ValueError, TypeError) as error:
        raise PeerError("no rows of tables") from error
    if len(rows) > ROWS_MAX or any(table not in TABLES for table, _ in rows):
        raise PeerError("no such tables")
    return rows


def started(disk: Disk) -> str:
    """Read all that a node reads when it starts, and answer from it; each part by itself."""
    said = [_of_disk(read, disk) for read in (_restored, _told, _journal, _invites, _ledger)]
    return " | ".join(said)[:190]


def _of_disk(read: Callable[[Disk], object], disk: Disk) -> str:
    try:
        return str(read(disk))
    except MeshError as error:
        return f"{type(error).__name__} {error.message[:20]}"


def _restored(disk: Disk) -> object:
    mesh = Mesh(GENESIS, Self(ROOT, 6, Random(1)))
    damage = restore(mesh, disk, 1_790_000_000.0)  # type: ignore[arg-type] # a database of its shape
    mesh.recall(0.0)
    mesh.start(0.0)
    queries = Queries(mesh, prices(), ManualClock())
    list_sessions(queries, local.ListSessionsRequest(filter="all"))
    list_nodes(queries, local.ListNodesRequest())
    name_member(queries, local.NameMemberRequest())
    get_cost(queries, local.GetCostRequest(by=("day", "model")))
    disk.run_now(feeds.load_own, node_id_of(NODE.public))
    disk.run_now(feeds.rewrite, damage.held, None)
    return damage.summary


def _told(disk: Disk) -> object:
    held = disk.run_now(events.begin, "aaaaaaaa")
    log = EventLog(held.log_id, held.run, "bbbbbbbb", held.events)
    left = left_from(held.stopped)
    log.begin_run(left.last if left else log.last, left.starts if left else None)
    list(kept_events(held.events, event_pb.ListEventsRequest()))
    log.trim(1_790_000_000.0 - KEPT_S)
    return len(held.events)


def _journal(disk: Disk) -> object:
    disk.run_now(journal.generation, 5)
    disk.run_now(journal.raise_floor, 9.0)
    going_on = [command_from_signed(one.command) for one in disk.run_now(journal.undone)]
    entry = JournalEntry(bytes(16), bytes(32), 99)
    receipt = disk.run_now(journal.begin, entry, 0.0, disk.run_now(journal.count))
    return len(going_on) if receipt is None else signed_to_wire(receipt).type


def _invites(disk: Disk) -> object:
    disk.run_now(invites.outstanding, 0.0)
    invite = disk.run_now(invites.get, bytes(16))
    join_proof(invite.secret, NODE_ID, b"application")
    return f"{invite.role} {invite.expires_s < 9} {invite.uses_left > 0}"


def _ledger(disk: Disk) -> object:
    for key, value in disk.run_now(ledger.slots):
        key_to_row(key), value_to_row(value)
    disk.run_now(ledger.load, READER)
    disk.run_now(ledger.published)
    disk.run_now(rollups.apply, disk.run_now(rollups.plan, 2e9, b"", 1 << 16).moved)
    disk.run_now(usage_log.page, 0, 10)
    disk.run_now(usage_log.of_session, "s", 0, 10)
    return disk.run_now(facts.recall, "name")


def configuration(raw: bytes) -> object:
    return load_config(written("config.yaml", raw))


def registrations(raw: bytes) -> object:
    return registrations_in(parse_document(raw, "agents.yaml"), "agent", ("spec",), {})


def secret(raw: bytes) -> object:
    return read_secret(written("node.key", raw))


def genesis(raw: bytes) -> object:
    return read_genesis(Home(written("home/genesis.bin", raw).parent))


def began_with(raw: bytes) -> str:
    """Read what a home started with, into a database that was lost."""
    home = Home(written("begun/beginning.bin", raw).parent)
    home.beginning.write_bytes(raw)
    disk = Disk()
    try:
        count = len(beginning(home))
        recover(home, disk)  # type: ignore[arg-type] # a database of its shape
        return f"{count} {started(disk)}"
    finally:
        disk.close()


def joined_with(raw: bytes) -> str:
    """Finish a join that was cut short, from whatever it has left behind."""
    home = Home(written("joined/joining.bin", raw).parent)
    disk = Disk()
    try:
        finish(home, disk)  # type: ignore[arg-type] # a database of its shape
        return f"{read_genesis(home).name} {started(disk)}"
    finally:
        disk.close()


def sent_before(raw: bytes) -> object:
    written("outbox/0a", raw)
    return outbox.kept(Home(place()), "0a", Order(NODE_ID, 1, "steer", "s", {"a": 1}))


def supervisor_state(raw: bytes) -> object:
    directory = written("state.json", raw).parent
    following = Following("s", directory, directory / "socket")
    state = following.state()
    return following.roots(state), following.group(state), ending_of(state, 1.0)


def supervisor_request(raw: bytes) -> object:
    """Take a line from the supervisor's socket."""
    said: list[object] = []
    client = SimpleNamespace(send=lambda message: said.append(json.dumps(message)))
    inbox = Inbox(lambda: 5.0, lone=False)
    inbox.add({"command_id": "c", "message": "go"})
    operations = {
        "steer": lambda _client, _head, request: steer_line(request, "json"),
        "inbox": inbox.read,
        "take": inbox.take,
    }
    Supervisor._handle(SimpleNamespace(_operations=operations), client, raw)  # type: ignore[arg-type] # only what it handles with
    return said


def inbox_page(raw: bytes) -> object:
    """Take the answer of a supervisor about an inbox."""
    return page_of(answer_of(raw))


def supervisor_reply(raw: bytes) -> object:
    """Take lines from a supervisor."""

    async def read() -> int:
        reader = asyncio.StreamReader(limit=1 << 16)
        reader.feed_data(raw)
        reader.feed_eof()
        line, count = Line(reader, None), 0  # type: ignore[arg-type] # a reader of bytes
        async for message in line.messages():
            line.resolve(message)
            count += 1
        return count

    return f"{asyncio.run(read())} lines"


def error_of_a_node(raw: bytes) -> str:
    errors = client_errors._rebuilt(raw), rpc_errors._rebuild(raw)
    return " ".join(type(error).__name__ for error in errors)


def announcement(raw: bytes) -> str:
    """Take the TXT record of somebody's mDNS announcement."""
    hints: list[object] = []
    info = AsyncServiceInfo(
        SERVICE, f"x.{SERVICE}", port=7707, addresses=[b"\x7f\0\0\1"], properties=raw
    )
    heard = SimpleNamespace(announcement=SimpleNamespace(node_id="me"), _on_hint=hints.append)
    Discovery._take(heard, info)  # type: ignore[arg-type] # only what it takes with
    return f"{len(hints)} hints"


def chain_of_certificates(raw: bytes) -> object:
    """Judge a chain as the row of a member shows it, and as a home keeps it."""
    chain = [one for one in typed_list(raw) if isinstance(one, bytes)]
    admitted = leads_to_root(chain, NODE_ID, GENESIS.root_keys)
    try:
        facts_of = membership_in(chain, GENESIS, NODE_ID)
    except DamagedError as error:
        return f"{admitted} {error.message}"
    return f"{admitted} {facts_of.chains_to_root} {facts_of.is_for_our_key}"


def typed_list(raw: bytes) -> list[object]:
    try:
        return list(typed(unpack(raw), list))
    except TypeError as error:
        raise PeerError("no list") from error


def left(raw: bytes) -> object:
    return "nothing" if left_from(raw) is None else "a stop"


def fact(raw: bytes) -> object:
    return facts.map_of(raw, "labels", str), facts.map_of(raw, "seeds", list)


def watch_position(raw: bytes) -> object:
    log = EventLog("aaaaaaaa", 1, "bbbbbbbb")
    watching = Watching(raw.decode("utf-8", "replace")).checked()
    return str(log.seq_at(watching.position))


def request(raw: bytes) -> object:
    """Take a request on the local socket: a byte that chooses the method, then protobuf."""
    answer = METHODS[raw[0] % len(METHODS)] if raw else METHODS[0]
    return answer(raw[1:])


def _queries() -> Queries:
    return Queries(Mesh(GENESIS, Self(ROOT, 6, Random(1))), prices(), ManualClock())


def _add_control(raw: bytes) -> object:
    async def submit(signed: object) -> None:
        mesh = Mesh(GENESIS, Self(ROOT, 6, Random(1)))
        mesh.add_control(signed, 0.0)  # type: ignore[arg-type] # the effects are dropped

    return asyncio.run(add_control(submit, local.AddControlRequest.FromString(raw)))


def _submit(raw: bytes) -> object:
    message = local.SubmitCommandRequest.FromString(raw)
    return _owner(message.node_id), signed_from_wire(message.command)


def _history(raw: bytes) -> object:
    message = event_pb.ListEventsRequest.FromString(raw)
    history_from_wire(message)[0].checked()
    return list(kept_events([], message))


def _watch(raw: bytes) -> object:
    message = event_pb.WatchRequest.FromString(raw)
    watching = Watching(message.position, tuple(message.kinds), message.about).checked()
    return EventLog("aaaaaaaa", 1, "bbbbbbbb").seq_at(watching.position)


METHODS: tuple[Callable[[bytes], object], ...] = (
    lambda raw: list_sessions(_queries(), local.ListSessionsRequest.FromString(raw)),
    lambda raw: list_nodes(_queries(), local.ListNodesRequest.FromString(raw)),
    lambda raw: find_agents(_queries(), local.FindAgentsRequest.FromString(raw)),
    lambda raw: get_cost(_queries(), local.GetCostRequest.FromString(raw)),
    lambda raw: query_from_wire(local.GetCostRequest.FromString(raw), lambda name: name),
    lambda raw: read_head({}, local.ReadHeadRequest.FromString(raw)),
    _add_control,
    _submit,
    _history,
    _watch,
    lambda raw: name_member(_queries(), local.NameMemberRequest.FromString(raw)),
)
