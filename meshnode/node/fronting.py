"""The HTTP front door of a node: made of its parts, with TLS if it is to leave this machine.

Invariant: nothing of the gateway is imported, and nothing is counted, unless it is asked for: an
idle node is as small as without the extra `http`.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.app.commands.bearers import Bearers
from meshnode.app.commands.keys import Keys
from meshnode.app.counting import Counting
from meshnode.app.sessions.sessions import SESSIONS_MAX
from meshnode.client.home import unwritten
from meshnode.client.keys.keyfiles import write_whole
from meshnode.core.errors import UsageError
from meshnode.core.membership.certificates import dns_name_of, expires_at_s
from meshnode.discovery.seeds import parse_address
from meshnode.node.clock import chance
from meshnode.node.configuration.http_options import OWN_CERTIFICATE, tls_context
from meshnode.node.presence.addresses import joined
from meshnode.node.version import VERSION

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from starlette.types import ASGIApp

    from meshnode.app.audit.auditing import Auditor
    from meshnode.app.queries.queries import Queries
    from meshnode.app.queries.views import BudgetView
    from meshnode.core.sessions.sessions import SessionRecord
    from meshnode.gateway.listening import Listener
    from meshnode.gateway.metrics import Metrics
    from meshnode.node.configuration.http_options import HttpOptions
    from meshnode.node.ground import Ground
    from meshnode.node.sessions.commanding import Commanding
    from meshnode.node.sessions.hosting import Hosting

    OnSession = Callable[[SessionRecord | None, SessionRecord], None]

RELOAD_S = 3600.0  # the node's own leaf is another one each day
_log = logging.getLogger("session_mesh.http")


class Behind(msgspec.Struct, frozen=True):
    """The parts of a node that its front door opens to."""

    hosting: Hosting
    queries: Queries
    commanding: Commanding
    auditor: Auditor
    budgets: Mapping[str, BudgetView]


class Fronting:
    """The HTTP listeners of a node; `bound` is where the API is, `metrics` where they are alone."""

    def __init__(self, ground: Ground, behind: Behind, options: HttpOptions) -> None:
        self._ground = ground
        self._behind = behind
        self._options = options
        self._tls: ssl.SSLContext | None = None
        self._loaded = self._stamps()  # the files that it is from
        self._listeners: list[Listener] = []
        self.bound: str | None = None
        self.metrics: str | None = None
        from meshnode.gateway.listening import all_places  # noqa: PLC0415 - only if asked for
        from meshnode.gateway.metrics import Measured, Metrics  # noqa: PLC0415 - as above
        from meshnode.gateway.scraping import metrics_alone  # noqa: PLC0415 - as above

        self._places = all_places()
        self._counting = counting = Counting(ground.world.mesh.self_id, ground.clock.wall_s)
        metrics = Metrics(
            Measured(
                counting,
                behind.queries,
                behind.hosting.sessions,
                ground.alarms,
                behind.budgets,
                lambda: min(map(expires_at_s, ground.identity.chain)),
                ground.clock.steady_s,
            )
        )
        if options.listen:
            self._tls = self._context()
            self.bound = self._listen(
                "http", options.listen, self._front(metrics, counting), self._tls
            )
        if options.metrics:
            self.metrics = self._listen(
                "metrics", options.metrics, metrics_alone(metrics, ground.clock.steady_s), None
            )

    async def start(self) -> None:
        """Begin to count what the parts of this node do, and to answer."""
        self._count()
        for listener in self._listeners:
            await listener.start()
        if self._tls is None:
            return
        if self._options.certificate == OWN_CERTIFICATE:
            self._ground.keep(self._renew(self._tls))
        else:
            self._ground.keep(
                self._reload(self._listeners[0])
            )  # the API's: metrics alone are plain

    async def close(self) -> None:
        """End, once what is under way is answered."""
        for listener in self._listeners:
            await listener.close()

    def _listen(self, flag: str, place: str, app: ASGIApp, tls: ssl.SSLContext | None) -> str:
        from meshnode.gateway.listening import Listener, bound  # noqa: PLC0415 - as above

        host, port = parse_address(place)
        sock = bound(host, port, flag)
        self._listeners.append(Listener(app, sock, tls, self._places))
        return joined(host, sock.getsockname()[1])

    def _front(self, metrics: Metrics, counting: Counting) -> ASGIApp:
        from meshnode.gateway.acting import Actor  # noqa: PLC0415 - as above
        from meshnode.gateway.desk import Desk  # noqa: PLC0415 - as above
        from meshnode.gateway.front import front  # noqa: PLC0415 - as above
        from meshnode.gateway.pages import Pages  # noqa: PLC0415 - as above
        from meshnode.gateway.routes import Parts  # noqa: PLC0415 - as above

        world, clock, queries = self._ground.world, self._ground.clock, self._behind.queries
        commanding, here = self._behind.commanding, world.mesh.self_id
        parts = Parts(
            desk=Desk(Bearers(Keys(world.mesh), here), clock),
            actor=Actor(queries, commanding.bringer, commanding.journal_generation, clock, chance),
            pages=Pages(queries, lambda: world.changes, clock),
            queries=queries,
            clock=clock,
            chance=chance,
            health=self._health,
            metrics=metrics,
        )
        hosts = (dns_name_of(here), *self._options.hosts)
        return front(parts, VERSION, hosts, self._options.origins, counting.limited)

    def _count(self) -> None:
        counting, world, sessions = (
            self._counting,
            self._ground.world,
            self._behind.hosting.sessions,
        )
        sessions.on_change = _both(sessions.on_change, counting.session)
        sessions.on_full, sessions.on_found = counting.full, counting.found
        world.on_change.append(counting.change)
        world.on_state.append(counting.member)
        self._behind.auditor.on_command = counting.command

    def _health(self) -> dict[str, Any]:
        coverage = self._behind.queries.coverage()
        active = len(self._behind.hosting.sessions.live())
        return {
            "status": "degraded" if self._ground.alarms.standing() else "ok",
            "sessions": {"active": active, "max": SESSIONS_MAX},
            "coverage": {
                "nodes_known": coverage.nodes_known,
                "nodes_heard": coverage.nodes_heard,
            },
        }

    def _context(self) -> ssl.SSLContext | None:
        if not self._options.certificate:
            return None
        if self._options.certificate != OWN_CERTIFICATE:
            return self._options.files_context()
        context = tls_context()
        home = self._ground.home
        try:
            self._load_own(context)
        except OSError as error:
            raise unwritten(home.run, error) from None
        return context

    def _stamps(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(map(_stamp, (self._options.certificate, self._options.key)))

    def _load_own(self, context: ssl.SSLContext) -> None:
        leaf = self._ground.identity.leaf()
        # What to trust, before what is shown: the roots of the mesh may have been exchanged.
        write_whole(self._ground.home.anchors, self._ground.identity.anchors)
        with tempfile.TemporaryDirectory(dir=self._ground.home.run) as directory:
            # Python reads keys from files only; this one is the user's alone, and gone at once.
            chain, key = Path(directory, "chain"), Path(directory, "key")
            chain.write_bytes(leaf.chain)
            key.write_bytes(leaf.private_key)
            context.load_cert_chain(chain, key)

    async def _renew(self, context: ssl.SSLContext) -> None:
        while True:
            await asyncio.sleep(RELOAD_S)
            try:
                self._load_own(context)
            except Exception as error:  # noqa: BLE001 - whatever: the one of before lasts for days
                _log.warning("the certificate of HTTPS was not renewed, and will be: %s", error)

    async def _reload(self, listener: Listener) -> None:
        """Meet whoever comes next with the files that were given, once they are other ones."""
        while True:
            await asyncio.sleep(RELOAD_S)
            stamps = self._stamps()
            if stamps == self._loaded:
                continue
            try:
                listener.tls = self._options.files_context()
                self._loaded = stamps  # of before it was read: what comes meanwhile is read again
            except UsageError as error:
                _log.warning("HTTPS goes on with the certificate that it has: %s", error.message)


def _both(first: OnSession, second: OnSession) -> OnSession:
    def told(before: SessionRecord | None, after: SessionRecord) -> None:
        first(before, after)
        second(before, after)

    return told


def _stamp(file: str) -> tuple[int, int] | None:
    """Tell one state of a file from another; None if there is none."""
    try:
        told = Path(file).stat()
    except OSError:
        return None
    return told.st_mtime_ns, told.st_ino
