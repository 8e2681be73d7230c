"""The HTTP front door of a node: made of its parts, with TLS if it is to leave this machine.

Invariant: nothing of the gateway is imported unless it is asked for, so an idle node is as small as
without the extra `http`.
"""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meshnode.app.bearers import Bearers
from meshnode.app.keys import Keys
from meshnode.app.sessions import SESSIONS_MAX
from meshnode.core.certificates import dns_name_of
from meshnode.core.errors import MeshError, UsageError
from meshnode.discovery.seeds import parse_address
from meshnode.node.addresses import joined
from meshnode.node.clock import chance
from meshnode.node.http_options import OWN_CERTIFICATE
from meshnode.node.version import VERSION

if TYPE_CHECKING:
    from meshnode.app.queries import Queries
    from meshnode.node.commanding import Commanding
    from meshnode.node.ground import Ground
    from meshnode.node.hosting import Hosting
    from meshnode.node.http_options import HttpOptions

RELOAD_S = 3600.0  # the node's own leaf is another one each day


class Fronting:
    """The HTTP listener of a node."""

    def __init__(
        self,
        ground: Ground,
        hosting: Hosting,
        queries: Queries,
        commanding: Commanding,
        options: HttpOptions,
    ) -> None:
        from meshnode.gateway.acting import Actor  # noqa: PLC0415 - only if asked for
        from meshnode.gateway.desk import Desk  # noqa: PLC0415 - as above
        from meshnode.gateway.front import front  # noqa: PLC0415 - as above
        from meshnode.gateway.listening import Listener, bound  # noqa: PLC0415 - as above
        from meshnode.gateway.pages import Pages  # noqa: PLC0415 - as above
        from meshnode.gateway.routes import Parts  # noqa: PLC0415 - as above

        self._ground = ground
        self._hosting = hosting
        self._queries = queries
        self._options = options
        mesh, clock = ground.world.mesh, ground.clock
        bearers = Bearers(Keys(mesh), mesh.self_id)
        parts = Parts(
            desk=Desk(bearers, clock),
            actor=Actor(queries, commanding.bringer, commanding.journal_generation, clock, chance),
            pages=Pages(queries, lambda: ground.world.changes, clock),
            queries=queries,
            clock=clock,
            chance=chance,
            health=self._health,
        )
        hosts = (dns_name_of(mesh.self_id), *options.hosts)
        app = front(parts, VERSION, hosts, options.origins)
        host, port = parse_address(options.listen)
        self._tls = self._context()
        sock = bound(host, port)
        self._listener = Listener(app, sock, self._tls)
        self.bound = joined(host, sock.getsockname()[1])

    async def start(self) -> None:
        """Begin to answer."""
        await self._listener.start()
        if self._options.certificate == OWN_CERTIFICATE:
            self._ground.spawn(self._renew())

    async def close(self) -> None:
        """End, once what is under way is answered."""
        await self._listener.close()

    def _health(self) -> dict[str, Any]:
        coverage = self._queries.coverage()
        return {
            "status": "degraded" if self._ground.alarms.standing() else "ok",
            "sessions": {"active": len(self._hosting.sessions.live()), "max": SESSIONS_MAX},
            "coverage": {
                "nodes_known": coverage.nodes_known,
                "nodes_heard": coverage.nodes_heard,
            },
        }

    def _context(self) -> ssl.SSLContext | None:
        if not self._options.certificate:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if self._options.certificate == OWN_CERTIFICATE:
            self._load_own(context)
            self._ground.home.anchors.write_bytes(self._ground.identity.anchors)  # what to trust
            return context
        try:
            context.load_cert_chain(self._options.certificate, self._options.key, password=_no_one)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"cannot serve TLS with {self._options.certificate}: {_said(error)}",
                "a certificate chain and its key without a passphrase, both PEM",
            ) from None
        return context

    def _load_own(self, context: ssl.SSLContext) -> None:
        leaf = self._ground.identity.leaf()
        with tempfile.TemporaryDirectory(dir=self._ground.home.run) as directory:
            # Python reads keys from files only; this one is the user's alone, and gone at once.
            chain, key = Path(directory, "chain"), Path(directory, "key")
            chain.write_bytes(leaf.chain)
            key.write_bytes(leaf.private_key)
            context.load_cert_chain(chain, key)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_S)
            if self._tls is not None:
                self._load_own(self._tls)


def _no_one() -> str:
    raise MeshError("the key has a passphrase, and nobody is there to give it")


def _said(error: OSError) -> str:
    return (error.strerror or str(error)).lower()[:200]
