"""A running node: everything constructed, started in order, and ended in order.

Invariant: every task has this node's task group as its parent. At the end listeners close first,
then links, then the disk; agents live on unless somebody asked for their end.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from meshnode.app.audit.alarms import Alarms
from meshnode.app.commands.keys import Keys
from meshnode.app.membership.admission import AdmissionDesk, Admitter
from meshnode.app.membership.authorities import Authorities
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.app.queries.indexes import Indexes
from meshnode.app.queries.queries import Queries
from meshnode.app.queries.views import Stopped
from meshnode.app.sessions.directions import Directions
from meshnode.core.errors import MeshError, StorageError
from meshnode.core.ids import NodeId, new_u64
from meshnode.core.membership.members import NodeRecord, is_admitted
from meshnode.core.sealing import SealingKey
from meshnode.discovery.hints import Announcement
from meshnode.node.audit.alarming import log_alarm
from meshnode.node.audit.auditing import Auditing
from meshnode.node.audit.eventing import Eventing
from meshnode.node.background import Background
from meshnode.node.clock import SystemClock, chance, new_rng
from meshnode.node.configuration.pricing import running_prices
from meshnode.node.configuration.told import LABELS_FACT
from meshnode.node.ending import Ending
from meshnode.node.ground import Ground
from meshnode.node.homes.admitting import tell_of_members
from meshnode.node.homes.authority import AuthorityFile
from meshnode.node.homes.books import StoredInvites
from meshnode.node.homes.founding import NAME_FACT, beginning, device_key, read_genesis
from meshnode.node.homes.introducing import dismiss, introduced_in, seeds_in
from meshnode.node.homes.membership import certificates_of
from meshnode.node.homes.persistence import FeedWriter
from meshnode.node.homes.renewing import Renewing
from meshnode.node.homes.restoring import take_up
from meshnode.node.ledger.budgeting import Budgeting
from meshnode.node.ledger.following import Following
from meshnode.node.names import default_node_name
from meshnode.node.presence.describing import Describing
from meshnode.node.presence.finding import Finding
from meshnode.node.presence.last_heard import keep_last_heard, last_heard
from meshnode.node.presence.listeners import Listeners
from meshnode.node.presence.moving import watch
from meshnode.node.presence.own_record import LAST_WRITE_S, OwnRecord, labels_of
from meshnode.node.presence.own_socket import OwnSocket
from meshnode.node.presence.yielding import give_way_to_clones
from meshnode.node.sessions.commanding import Commanding
from meshnode.node.sessions.hosting import Hosting
from meshnode.node.sessions.inside import Inside
from meshnode.node.sessions.standing import Standing
from meshnode.node.version import VERSION
from meshnode.node.world import NodeWorld
from meshnode.rpc.authorities import AuthorityServicer
from meshnode.rpc.enrolment import EnrolmentServicer
from meshnode.rpc.keys import KeyServicer
from meshnode.rpc.links import LinkServicer
from meshnode.rpc.local import LocalParts, LocalServicer
from meshnode.rpc.servers import local_server
from meshnode.rpc.tls import Credentials, Identity
from meshnode.store import facts
from meshnode.wire.links import Introduction

if TYPE_CHECKING:
    from meshnode.client.home import Home
    from meshnode.core.feeds.rows import Rows
    from meshnode.node.configuration.told import NodeOptions
    from meshnode.node.fronting import Fronting
    from meshnode.rpc.servers import Service
    from meshnode.store.database import Database

LAST_NEWS_S = 0.2  # for the last flush to reach the neighbours before the links close
STOP_GRACE_S = 0.3
_log = logging.getLogger("session_mesh.node")


class Node:
    """One node of a mesh. Its caller holds the home's lock and opened the database."""

    _front: Fronting | None = None  # only where HTTP is asked for

    def __init__(
        self, home: Home, options: NodeOptions, database: Database, tasks: asyncio.TaskGroup
    ) -> None:
        self._home, self._options = home, options
        self._database, self._clock = database, SystemClock()
        self._started_at_s = self._clock.wall_s()
        self._facts: dict[str, bytes | None] = {}
        self.genesis = read_genesis(home)
        self._key = device_key(home)
        boot = new_u64(chance)
        self._mesh = Mesh(
            self.genesis, Self(self._key, boot, new_rng(), self._wall_at, admits=self._admits)
        )
        chain = certificates_of(home)  # read once: the disk may go while the node runs
        self._identity = Identity(
            Credentials(self._key, self.genesis, chain, self._clock.wall_s, chance)
        )
        self._alarms = Alarms(self._clock.wall_s, log_alarm)
        self._work = work = Background(tasks, self._alarms)
        self._world = NodeWorld(
            self._mesh,
            self._clock,
            self._identity,
            Introduction(boot, (), chain),
            work.spawn,
            self._alarms,
        )
        replicas = self._mesh.replication.replicas
        self._writer = FeedWriter(
            database, replicas.__getitem__, self._world.persisted, self._alarms
        )
        self._world.writer = self._writer
        self._finding = Finding(self._world, work.spawn)
        self._ending = Ending(work.spawn, self._end, options.on_exit)
        prices, charged = running_prices(options.prices or home.prices, partial(_log.warning, "%s"))
        self._listeners = Listeners(self._identity, options.listen, options.advertise)
        self._ground = ground = Ground(
            home,
            self._key,
            self._identity,
            database,
            self._clock,
            self._alarms,
            self._world,
            tasks,
            work.spawn,
            work.keep,
        )
        self._auditing = Auditing(ground)
        self._following = Following(ground, charged, self._auditing.auditor)
        self._hosting = Hosting(ground)
        self._hosting.sessions.on_change = self._auditing.auditor.session
        self._indexes, heard = Indexes(self._mesh, prices), last_heard(database)
        self._queries = Queries(self._mesh, prices, self._clock, None, self._indexes, heard)
        self._eventing = Eventing(self._world, self._clock, database, prices)
        self._commanding = Commanding(ground, self._hosting, self._queries, self._auditing)
        self._standing = Standing(ground, self._hosting, self._queries, self._auditing.auditor)
        self._budgeting = Budgeting(
            *(ground, self._hosting, self._queries),
            self._auditing.auditor,
            prices,
            options.budgets,
        )
        self._inside = Inside(ground, self._hosting, self._queries, self._following, charged)
        admitter = Admitter(self._key, self.genesis, self._mesh.control, self._admits_by)
        self._admission = AdmissionDesk(
            admitter, StoredInvites(database), self._clock, chance, self._commanding.floor
        )
        self._admission.addresses = lambda: self._listeners.members.addresses
        self._admission.add_control = self._world.add_control
        self._admission.on_event = self._auditing.auditor.admission
        tell_of_members(self._admission, self._mesh)
        self._renewing = Renewing(ground, admitter, self._commanding.relaying, self._republish)
        self._describing = Describing(
            home,
            self._name,
            self._started_at_s,
            options.seeds,
            self._world,
            self._listeners,
            self._hosting.sessions,
            self._finding,
            self._following,
            self._alarms,
        )

    async def start(self) -> dict[str, Any]:
        """Start serving; returns the ready event. Raises a MeshError if something is in the way."""
        self._take_up()
        self._renewing.begin()
        self._work.keep(self._writer.run(), stops_writes=True)
        self._auditing.start()
        commanding = self._commanding
        await self._listeners.bind_members(
            LinkServicer(self._world.links),
            commanding.servicer,
            self._mesh.revoked,
            [self._renewing.servicer, commanding.audit_for_members],
        )
        enrolment = EnrolmentServicer(
            self._admission, self.genesis.mesh_id, self._mesh.self_id, self._clock
        )
        await self._listeners.bind_joiners(enrolment)
        self._bind_front()  # like the ports above: nobody hears of a node that cannot start
        events = self._eventing.open(chance)  # nor takes it up what the last one left
        self._world.on_news = self._indexes.before(self._world.on_news)
        self._own = OwnRecord(self._world, self._identity, self._record(self._say_where()))
        with suppress(StorageError):  # a disk without room: the record waits, the node answers
            await self._own.publish()
        directions = Directions(self._options.directions, self._queries)
        self._hosting.sessions.meant = directions.meant
        self._hosting.restore()  # after that flush: a home that has joined signs its rows anew
        self._commanding.start()
        self._world.start()
        await self._listeners.start()
        servicer = LocalServicer(self._local_parts())
        keys = KeyServicer(Keys(self._mesh), self._clock.wall_s)
        authorities = AuthorityServicer(Authorities(self._mesh.control))
        more: list[Service] = [keys, authorities, self._inside.servicer, commanding.audit_for_user]
        more += [self._standing.servicer, self._budgeting.servicer]
        parts = partial(local_server, servicer, events, more=more, gate=self._inside.gate)
        self._listeners.own = OwnSocket(self._ground, parts)
        await self._listeners.own.open()
        if self._front:
            await self._front.start()
        self._find_members()
        await self._hosting.attribute(self._options.ingest)
        await self._following.start(self._options.ingest)
        self._eventing.start(self._work.keep)
        self._work.keep(self._indexes.run())
        self._standing.start()
        self._budgeting.start(self._eventing)
        self._work.keep(self._renewing.run())
        self._work.spawn(self._hosting.reattach())
        return self._ready()

    def _bind_front(self) -> None:
        if self._options.http.listen or self._options.http.metrics:
            from meshnode.node.fronting import Behind, Fronting  # noqa: PLC0415 - if it is on

            parts = self._hosting, self._queries, self._commanding, self._auditing.auditor
            behind = Behind(*parts, self._budgeting.desk.shown)
            self._front = Fronting(self._ground, behind, self._options.http)

    async def run(self) -> None:
        """Serve until told to stop, then end in order."""
        await self._ending.over.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WRITE_S):
                await self._auditing.close()
        await self._finding.close()
        if self._front:
            await self._front.close()
        await asyncio.sleep(LAST_NEWS_S)
        self._world.close()
        self._eventing.end_watching()
        await self._listeners.close(STOP_GRACE_S)
        await self._hosting.agents.close()
        with suppress(TimeoutError):  # a disk that takes nothing must not keep us here
            async with asyncio.timeout(LAST_WRITE_S):
                await self._writer.drained()
                await self._eventing.close()
                await self._authority.write()
        self._work.cancel()

    def ask_to_stop(self) -> None:
        """Stop as SIGTERM does: reversible, sessions as configured; an end under way stands."""
        self._ending.obey()

    async def _tell_last(self, standing: str) -> None:
        try:
            async with asyncio.timeout(LAST_WRITE_S):
                await self._hosting.sessions.untold.tell_all()
                await self._own.publish_last(standing)
        except (TimeoutError, MeshError) as error:
            why = error.message if isinstance(error, MeshError) else "the disk takes nothing"
            _log.warning("others will see this node as unreachable: %s", why)
        await keep_last_heard(self._database, self._queries)  # after what others wait for

    def _take_up(self) -> None:
        give_way_to_clones(self._ground, self._finding, self._listeners)
        begun, now_s = beginning(self._home), self._clock.wall_s()
        unwanted = take_up(self._world, self._database, self._alarms, begun, now_s)
        self._writer.drop_entries(unwanted)
        self._authority = AuthorityFile(self._ground)
        self._authority.take_up(now_s)
        self._work.keep(self._authority.run())
        self._following.take_up()
        self._queries.introduced = introduced_in(self._database, self._mesh)
        self._queries.unsaid = self._following.unsaid

    async def _end(self, leave: bool, sessions: str, close_s: float | None) -> Stopped:  # noqa: FBT001 - as asked
        if leave:
            self._alarms.check_writable()  # before a session is ended for it
        own, closed = self._hosting.sessions, 0
        live = len(own.live())
        if sessions == "close":
            with suppress(TimeoutError):
                async with asyncio.timeout(close_s):
                    await own.close_all("node")
            closed = live - len(own.live())
        links, members = len(self._mesh.overlay.links), self._queries.others()
        if leave:
            await self._own.withdraw()
        self._eventing.hold_states()
        await self._tell_last("left" if leave else "down")
        kept = live - closed + self._hosting.unlisted.count
        return Stopped(kept, closed, links, members)

    def _find_members(self) -> None:
        for peer, addresses in seeds_in(self._database).items():
            if peer != self._mesh.self_id:
                self._world.hint(peer, addresses)
        for seed in self._options.seeds:
            self._finding.follow_seed(seed)
        self._announce()
        if self._listeners.are_everywhere or not self._listeners.members.loopback_only:
            self._work.keep(watch(self._move, self._clock.steady_s))

    def _announce(self) -> None:
        if self._options.mdns:
            near, me = self._listeners.nearby(), (self._mesh.self_id, self.genesis.mesh_id)
            said = Announcement(*me, near.ipv4, near.told_port, near.loopback_only)
            self._finding.listen(said)

    async def _move(self, hosts: tuple[str, ...]) -> None:
        """Say where this machine is now, and listen there."""
        if self._listeners.move(hosts):
            addresses = self._say_where()
            _log.info("this machine has moved: members find it at %s now", ", ".join(addresses))
            self._own.move(addresses)
            with suppress(MeshError):  # a disk without room: the record waits, the node answers
                await self._own.publish()
        self._announce()

    def _say_where(self) -> tuple[str, ...]:
        links, addresses = self._world.links, self._listeners.members.addresses
        links.introduction = replace(links.introduction, addresses=addresses)
        return addresses

    def _record(self, addresses: tuple[str, ...]) -> NodeRecord:
        held = facts.map_of(self._fact(LABELS_FACT), LABELS_FACT, str)
        return NodeRecord(
            name=self._name(),
            addresses=addresses,
            version=VERSION,
            labels=labels_of(self._options.labels, held, self._alarms),
            capabilities=("process",),
            journal_generation=self._commanding.journal_generation,
            started_at_s=self._started_at_s,
            sealing_key=SealingKey.of_node(self._key, self.genesis.mesh_id).public,
        )

    def _name(self) -> str:
        known = self._fact(NAME_FACT)
        said = known.decode(errors="replace") if known else default_node_name()
        return self._options.name or said

    def _fact(self, key: str) -> bytes | None:
        if key not in self._facts:  # read before serving: the loop never waits for the disk later
            self._facts[key] = self._database.run_now(facts.recall, key)
        return self._facts[key]

    def _ready(self) -> dict[str, Any]:
        return {
            "event": "ready",
            "node_id": self._mesh.self_id,
            "name": self._name(),
            "listen": self._listeners.members.bound,
            "enrolment": self._listeners.joiners.bound,
            "http": self._front.bound if self._front else None,
            "metrics": self._front.metrics if self._front else None,
            "socket": str(self._home.socket),
            "mesh_id": self.genesis.mesh_id,
            "mesh_name": self.genesis.name,
        }

    def _local_parts(self) -> LocalParts:
        return LocalParts(
            self_id=self._mesh.self_id,
            queries=self._queries,
            sessions=self._hosting.sessions,
            tickets=self._inside.tickets,
            bringer=self._commanding.bringer,
            reader=self._commanding.servicer,
            courier=self._commanding.courier,
            admission=self._admission,
            enrolment_addresses=lambda: self._listeners.joiners.addresses,
            status=self._describing.status,
            replicas=self._mesh.replication.replicas,
            submit_control=self._world.submit_control,
            drop_awaited=partial(dismiss, self._database, self._queries.introduced),
            stop=self._ending.ask,
        )

    def _admits(self, origin: NodeId, rows: Rows) -> bool:
        return is_admitted(origin, rows, self._mesh.control.succession.ever)

    def _admits_by(self) -> bytes | None:
        return self._mesh.control.succession.certificate_of(self._mesh.self_id)

    async def _republish(self) -> None:
        if not self._ending.over.is_set():
            await self._own.publish()

    def _wall_at(self, steady_s: float) -> float:
        return self._clock.wall_s() - (self._clock.steady_s() - steady_s)
