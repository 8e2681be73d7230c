"""The audit log of a running node: what is recorded, how its head gets out, what others' say.

Invariant: a record is on disk before the head that covers it is published, and before the receipt
leaves of the command that it is about. Nothing waits for it: records travel with whatever
transaction comes next, or in one of their own after RIDE_S.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from meshnode.app.audit.alarms import Alarm
from meshnode.app.audit.auditing import Auditor, Happening
from meshnode.app.audit.witnessing import Seen, Witness
from meshnode.core.commands.audit import AUDIT, TEXTS, AuditHead, head_to_row, sign_head
from meshnode.core.errors import MeshError, RefusedError, StaleError, StorageError
from meshnode.core.feeds.heads import Head
from meshnode.core.ids import NodeId, new_u64, pasted
from meshnode.core.membership.members import ONLY_ROW
from meshnode.node.clock import chance
from meshnode.node.version import VERSION
from meshnode.rpc.audit import pieces_of, sought_in
from meshnode.store import audit, heads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from meshnode.app.ports import Sought
    from meshnode.core.commands.audit import Kept, Wrong
    from meshnode.core.commands.commands import Command, Court
    from meshnode.core.effects import Announce
    from meshnode.core.keys import Signed
    from meshnode.node.ground import Ground

RIDE_S = 0.2  # for a transaction of somebody else's to come
FIRST_HEAD_S = 4.0  # from the first link on: by then it has told a copy of a home that it is one
LINKED_LOOK_S = 0.5  # between two looks for that link
HEAD_PAUSE_S = 1.0  # between two heads at least, and with many members:
HEAD_PAUSE_A_MEMBER_S = 0.03  # every member verifies every head
LOOK_S = 1.0
KEEP_S = 5.0  # heads of others are written together
RETRY_S = 1.0
PAGE_RECORDS = 500  # read at a time: feeds are written between them
FIRST_RECORDS = 2 * audit.DROPPED_AT_ONCE + PAGE_RECORDS  # at once, so that no drop overtakes us
AUDIT_LOG = "audit_log"
READ_AUDIT = "read_audit"
_log = logging.getLogger("session_mesh.audit")


class Auditing:
    """Keeps this node's log, publishes its head, and watches those of others."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._mesh = ground.world.mesh
        self._clock = ground.clock
        self._database = ground.database
        self.self_id = self._mesh.self_id
        tail = self._database.run_now(audit.begin, ground.key.public, new_u64(chance))
        self._begun = tail
        self.rider = audit.AuditRider(tail)
        self.auditor = Auditor(self._clock, self._record, self._tell)
        self._published = 0  # the seq of the last head
        self._is_known = False  # whether others would have told us that this home is a copy
        self._filled, self._arrived = asyncio.Event(), asyncio.Event()
        newest = self._database.run_now(heads.newest_of_all)
        self._witness = Witness(newest, self._accuse)
        self.court: Court  # that judges who reads

    def start(self) -> None:
        """Begin: the feeds are taken up, the loop runs."""
        self._loop = asyncio.get_running_loop()
        self.rider.on_arrived = self._on_arrived
        self.rider.on_trouble = self._on_trouble
        self._database.carry(self.rider)
        self._check_own()
        for one in self._database.run_now(heads.troubles):
            self._sound(one.head.node, one.trouble)
        self._ground.alarms.tell_also(self.auditor.alarm)
        mesh_id = self._mesh.genesis.mesh_id
        self._ground.world.on_entry.append(lambda entry: self.auditor.entry(entry, mesh_id))
        self._listen()
        self.auditor.note(Happening("node_started", detail=f"version {VERSION}"))
        for work in (self._write(), self._publish(), self._look(), self._keep()):
            self._ground.keep(work)

    async def close(self) -> None:
        """Write the last words, and tell the others; the links are still up."""
        self.auditor.close()
        self.auditor.note(Happening("node_stopped"))
        with suppress(MeshError):
            await self._database.run(audit.write_waiting)
            await self._database.run(heads.keep, self._witness.take(last=True))
            tail = self.rider.tail
            if self._is_known and tail.seq != self._published:
                await self._ground.world.publish(AUDIT, ONLY_ROW, self._head_row(tail))

    # What is read of it: app/ports.py AuditBook.

    def judge(self, signed: Signed, via: str) -> Command:
        """Return a request if it may read this node's log; raises a MeshError."""
        try:
            command = self.court.judge(signed, None, via, self._clock.wall_s())
        except MeshError as error:
            self.auditor.refused(signed, via, error)
            raise
        if command.action != READ_AUDIT:
            raise RefusedError("only the audit log can be read by this call")
        return command

    def check_revocations(self, command: Command) -> None:
        """Raise NotAuthenticatedError if what a request stands on was revoked since."""
        self.court.check_revocations(command)

    async def pages(self, sought: Sought) -> AsyncIterator[tuple[int, list[Kept]]]:
        """Yield the log's number and records, part by part, one part at least.

        Raises StaleError if more is dropped meanwhile than is read.
        """
        if not sought.limit:
            await self._database.run(audit.write_waiting)
        pages = self._pages(sought)
        while (page := await asyncio.to_thread(next, pages, None)) is not None:
            yield page

    def read(self, command: Command) -> Iterator[bytes]:
        """Answer a reading that was allowed over links, off the event loop; raises UsageError.

        What was written by now is read; what waits to be is covered by no head yet.
        """
        return pieces_of(self.self_id, self._pages(sought_in(command.args)))

    def _pages(self, sought: Sought) -> Iterator[tuple[int, list[Kept]]]:
        log, after = self.rider.tail.log, 0
        if sought.limit:
            yield log, self._database.run_now(audit.newest, sought)
            return
        kept = self._database.run_now(audit.page, after, FIRST_RECORDS)
        while kept:
            for begin in range(0, len(kept), PAGE_RECORDS):
                yield log, kept[begin : begin + PAGE_RECORDS]
            after = kept[-1].seq
            kept = self._database.run_now(audit.page, after, PAGE_RECORDS)
            if self.rider.tail.first > after + 1:
                raise StaleError("records were dropped before they could be read", "ask again")
        yield log, []

    async def heads(self, node_id: str) -> list[Seen]:
        """Return what was seen of a node's log; of all nodes what proves a change, for no id."""
        await self._database.run(heads.keep, self._witness.take())
        if not node_id:
            return await self._database.run(heads.troubles)
        node = NodeId(node_id)
        kept = await self._database.run(heads.of_node, node)
        seen = self._seen(node)
        return kept if seen is None else [*kept, seen]

    async def accept(self, node: NodeId) -> int:
        """Forget what was seen of a node's log; return how many heads that was."""
        count = await self._database.run(heads.drop, node)
        self._witness.forget(node)
        seen = self._seen(node)
        if seen is not None and node != self.self_id:
            self._witness.see(seen)
        self._ground.alarms.clear(_alarm_id(node))
        self.auditor.note(Happening("log_accepted", detail=f"of {node}, {count} heads forgotten"))
        return count

    def neighbours(self) -> tuple[NodeId, ...]:
        """Return who is linked."""
        return tuple(sorted(self._mesh.overlay.links))

    # What happens here.

    def _record(self, happening: Happening) -> None:
        texts = {name: str(getattr(happening, name)) for name in TEXTS}
        now_ms = int(self._clock.wall_s() * 1000)
        self.rider.put(audit.Noted(now_ms, texts, self._clock.steady_s()))
        self._filled.set()

    def _tell(self, happening: Happening) -> None:
        fields = {
            "event": happening.kind,
            "node": self.self_id,
            "session_id": happening.session,
            "agent_id": happening.agent,
            "owner": happening.owner,
            "command_id": happening.command,
            "key_id": happening.actor,
            "action": happening.action,
            "outcome": happening.outcome,
            "detail": happening.detail,
        }
        told: dict[str, object] = {name: text for name, text in fields.items() if text}
        if happening.duration_s is not None:
            told["duration_s"] = round(happening.duration_s, 3)
        _log.info("%s", happening.kind.replace("_", " "), extra={"fields": told})

    async def _write(self) -> None:
        """Write what no other transaction has taken along."""
        while True:
            await self._filled.wait()
            await asyncio.sleep(RIDE_S)
            self._filled.clear()
            while self.rider.waiting:
                before = self.rider.tail
                with suppress(StorageError):
                    await self._database.run(audit.write_waiting)
                if self.rider.tail is before:  # the disk takes nothing
                    await asyncio.sleep(RETRY_S)

    async def _publish(self) -> None:
        """Publish heads, the first of the log as it was at the start.

        Who has heard of later ones hears so that it went back, however far it has come since.
        """
        await self._until_known()
        self._check_own()  # once more: peers have returned by now what it may have lost
        self._is_known = True
        begun = None if self._is_published(self._begun) else self._begun
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            tail = begun or self.rider.tail
            if tail.seq != self._published:
                try:
                    row = self._head_row(tail)
                    self._ground.world.write(AUDIT, ONLY_ROW, row, patient=True)
                    self._published = tail.seq
                except MeshError:  # no room, or cloned: the other process writes the feed
                    self._arrived.set()  # so it is tried again
            if tail is begun and tail.seq == self._published:
                begun = None
                self._arrived.set()
            alive = len(self._mesh.liveness.alive)
            await asyncio.sleep(max(HEAD_PAUSE_S, HEAD_PAUSE_A_MEMBER_S * alive))

    async def _until_known(self) -> None:
        """Wait until others would have told us if this home is a copy of one that runs.

        What a copy publishes makes the log of the other a changed one. Without links nobody hears
        of a head, so it waits for one as long as there are other members.
        """
        mesh = self._mesh
        others = set(mesh.tables.origins()) - {self.self_id}
        while others - mesh.overlay.retired and not mesh.overlay.links:  # noqa: ASYNC110 - live views
            await asyncio.sleep(LINKED_LOOK_S)
        await asyncio.sleep(FIRST_HEAD_S)

    def _is_published(self, tail: audit.Tail) -> bool:
        """Whether our feed says just that, or there was no log yet."""
        said = self._mesh.tables.audit_head(self.self_id)
        told = None if said is None else (said[0].log, said[0].seq, said[0].hash)
        return not tail.seq or told == (tail.log, tail.seq, tail.hash)

    def _head_row(self, tail: audit.Tail) -> bytes:
        now_ms = int(self._clock.wall_s() * 1000)
        head = AuditHead(self.self_id, tail.log, tail.seq, tail.hash, now_ms)
        return head_to_row(sign_head(self._ground.key, head))

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self.auditor.tick()

    def _on_arrived(self, _tail: audit.Tail) -> None:
        """Say from the database's thread that there is a head to publish."""
        self._loop.call_soon_threadsafe(self._arrived.set)

    def _on_trouble(self, words: str) -> None:
        """Say from the database's thread that the table takes nothing."""
        self._loop.call_soon_threadsafe(self._fail, words)

    def _fail(self, words: str) -> None:
        said = f"the audit log takes no records: {words}"
        fix = "restore the home's database from a backup, or move it aside: peers return its rows"
        self._ground.alarms.sound(Alarm(AUDIT_LOG, said, fix))

    def _check_own(self) -> None:
        """Compare the log on the disk with the head that our feed has published of it."""
        said = self._mesh.tables.audit_head(self.self_id)
        if said is None:
            return
        head, tail = said[0], self.rider.tail
        found = self._database.run_now(audit.hash_at, head.seq)
        if head.log == tail.log and found == head.hash:
            return
        words = f"the audit log on this disk is not the one that was published up to {head.seq}"
        self._ground.alarms.sound(
            Alarm(AUDIT_LOG, words, "session-mesh audit --verify says from which record on")
        )

    # What others say.

    def _listen(self) -> None:
        """Hear of news beside whoever does already."""
        others = self._ground.world.on_news

        def heard(news: Announce) -> None:
            others(news)
            origin = news.origin
            if origin not in {None, self.self_id} and (AUDIT, ONLY_ROW) in news.places:
                seen = self._seen(NodeId(str(origin)))
                if seen is not None:
                    self._witness.see(seen)

        self._ground.world.on_news = heard

    def _seen(self, node: NodeId) -> Seen | None:
        """Return the head that a node's feed says now."""
        replica = self._mesh.replication.replicas.get(node)
        row = None if replica is None else replica.rows.get(AUDIT, ONLY_ROW)
        said = self._mesh.tables.audit_head(node)
        if row is None or said is None:
            return None
        return Seen(*said, self._clock.wall_s(), Head(row.epoch, row.seq))

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(KEEP_S)
            seen = self._witness.take()
            if seen:
                with suppress(StorageError):  # the next minute's are kept instead
                    await self._database.run(heads.keep, seen)

    def _accuse(self, node: NodeId, wrong: Wrong) -> None:
        self._sound(node, wrong.what)

    def _sound(self, node: NodeId, what: str) -> None:
        name, meant = self._mesh.tables.name_of(node), pasted("", node)
        said = f"the audit log of {name} ({node[:12]}) was changed: {what}"
        fix = (
            f"find out why: session-mesh audit --verify --node {meant}; if its disk was lost or "
            f"restored: session-mesh audit --accept {meant}"
        )
        self._ground.alarms.sound(Alarm(_alarm_id(node), said, fix))


def _alarm_id(node: NodeId) -> str:
    return f"audit:{node[:12]}"
