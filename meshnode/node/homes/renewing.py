"""A node stays a member: its certificate is renewed in time, and roots that change are followed.

Invariant: what a node shows always leads from its own key to a root that is present, as far as
anybody here has issued such a chain; a new one is on the disk before it is shown. No clock that was
wrong for a while costs the membership: what takes the place of a certificate counts now, and what
a node issues to itself counts whenever that one does.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from meshnode.app.audit.alarms import Alarm
from meshnode.app.membership.renewal import RenewalDesk
from meshnode.client.keys.keyfiles import write_whole
from meshnode.core.errors import MeshError, PeerError, UnreachableError
from meshnode.core.membership.certificates import (
    EXPIRES_SOON_S,
    counts_at,
    expires_at_s,
    from_pem,
    issue_node_ca,
    issuer_of,
    leads_to_root,
    renewal_due_s,
    to_pem,
)
from meshnode.node.clock import chance, new_rng
from meshnode.node.homes.roots import followed_by, remember_roots
from meshnode.rpc.renewal import RenewalServicer, ask_to_renew

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from meshnode.app.commands.relaying import Relaying
    from meshnode.app.membership.admission import Admitter
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Signed
    from meshnode.node.ground import Ground

CHECK_S = 3600.0
RETRY_S, RETRY_S_MAX = 5.0, 3600.0
ASKED_MAX = 8  # nodes that admit, in one attempt
OVER_LINKS_S = 10.0  # for one of them to answer
CERTIFICATE = "certificate"  # the alarm's id
_log = logging.getLogger("session_mesh.node")


class Renewing:
    """Keeps the certificates of one node, and renews those of others where it admits."""

    def __init__(
        self,
        ground: Ground,
        admitter: Admitter,
        relaying: Relaying,
        republish: Callable[[], Awaitable[None]],
    ) -> None:
        self._ground = ground
        self._mesh = ground.world.mesh
        self._identity = ground.identity
        self._admitter = admitter
        self._relaying = relaying
        self._republish = republish
        self._rng = new_rng()
        self._steps = 0
        self._chain_on_disk = ground.identity.chain
        self._mesh.control.succession.follow(followed_by(ground.home, self._mesh.genesis))
        desk = RenewalDesk(admitter, self._is_member, ground.clock, chance)
        self.servicer = RenewalServicer(desk)
        relaying.issue = lambda member: to_pem(desk.renew(member))

    def begin(self) -> None:
        """Take up what the disk says, before anything is served; renew what needs nobody else."""
        self._follow()
        if self._due_s() <= 0 and self._admitter.certificate() is not None:
            self._show(self._issued_by_myself())
        self._ground.world.on_entry.append(self._heard)

    async def run(self) -> None:
        """Renew in time, until cancelled; after failures again, each time a little later."""
        retry_s = RETRY_S
        while True:
            await asyncio.sleep(min(max(self._due_s(), 0.0), CHECK_S))
            if self._due_s() > 0:
                retry_s = RETRY_S
                continue
            try:
                await self._renew()
            except MeshError as error:
                _log.warning("the certificate was not renewed: %s", error.message)
                await asyncio.sleep(retry_s * self._rng.uniform(0.5, 1.0))
                retry_s = min(2 * retry_s, RETRY_S_MAX)
            self._judge()

    async def _renew(self) -> None:
        chain = await self._issued()
        self._show(chain)
        days = (expires_at_s(chain[0]) - self._ground.clock.wall_s()) / 86400
        _log.info("the certificate was renewed for %.0f days", days)
        await self._republish()

    async def _issued(self) -> tuple[bytes, ...]:
        """Return a new chain that is in order; raises the MeshError of the last that was asked."""
        if self._admitter.certificate() is not None:
            return self._issued_by_myself()
        failure: MeshError = UnreachableError("no node that admits is known")
        for admitter in self._candidates():
            try:
                return self._checked(await self._asked(admitter))
            except MeshError as error:
                failure = error
        raise failure

    async def _asked(self, admitter: NodeId) -> tuple[bytes, ...]:
        """Dial an admitter; one that cannot be dialled is asked over the links of others."""
        addresses = self._mesh.overlay.addresses_of(admitter)
        try:
            return await ask_to_renew(self._identity, admitter, addresses)
        except UnreachableError:
            if not self._relaying.has_path(admitter):
                raise
        try:
            async with asyncio.timeout(OVER_LINKS_S):
                return from_pem(await self._relaying.renew(admitter))
        except TimeoutError:
            name = self._mesh.tables.name_of(admitter)
            raise UnreachableError(f"{name} did not answer in {OVER_LINKS_S:g} s") from None

    def _issued_by_myself(self) -> tuple[bytes, ...]:
        certificate = self._admitter.certificate()
        if certificate is None:
            raise PeerError("this node admits nobody")
        key, now_s = self._ground.key, float(int(self._ground.clock.wall_s()))
        own = issue_node_ca(key, self._mesh.self_id, now_s, chance, self._identity.chain[0])
        return (own, certificate)

    def _candidates(self) -> list[NodeId]:
        """Choose whom to ask: first those alive, in any order, so that nobody gets all the work."""
        known = set(self._mesh.control.succession.admitters())
        known.add(issuer_of(self._identity.chain))  # of a mesh that keeps no list of them
        known.discard(self._mesh.self_id)
        order = sorted(one for one in known if not self._mesh.revoked.has(one))
        self._rng.shuffle(order)
        order.sort(key=lambda one: one not in self._mesh.liveness.alive)
        return order[:ASKED_MAX]

    def _checked(self, chain: tuple[bytes, ...]) -> tuple[bytes, ...]:
        roots = self._mesh.control.succession.present
        if not leads_to_root(chain, self._mesh.self_id, roots) or not issuer_of(chain):
            raise PeerError("it issued a certificate that makes nobody a member")
        present, now_s = self._identity.chain, self._ground.clock.wall_s()
        if not counts_at(chain, now_s):
            raise PeerError("it issued a certificate that does not count now: a clock is wrong")
        if counts_at(present, now_s) and expires_at_s(chain[0]) <= expires_at_s(present[0]):
            raise PeerError("it issued a certificate that lasts no longer than the present one")
        return chain

    # Roots that change.

    def _heard(self, _entry: Signed) -> None:
        if self._steps != self._mesh.control.succession.steps:
            self._follow()
            self._ground.spawn(self._republished())

    async def _republished(self) -> None:
        await self._republish()

    def _follow(self) -> None:
        """Trust the present roots, and show the certificate that leads to one of them."""
        succession, chain = self._mesh.control.succession, self._identity.chain
        self._steps = succession.steps
        certificate = succession.certificate_of(issuer_of(chain))
        try:
            remember_roots(self._ground.home, self._mesh.genesis, succession)
        except MeshError as error:  # a disk without room: the control set says it again
            _log.warning("%s", error.message)
        self._show(chain if certificate is None else (chain[0], certificate))

    def _show(self, chain: tuple[bytes, ...]) -> None:
        if chain != self._chain_on_disk:
            try:
                write_whole(self._ground.home.certificates, to_pem(chain))
                self._chain_on_disk = chain
            except MeshError as error:  # shown all the same; the next start asks again
                _log.warning("%s", error.message)
        self._identity.exchange(chain, self._mesh.control.succession.present)
        links = self._ground.world.links
        links.introduction = replace(links.introduction, certificates=chain)

    def _due_s(self) -> float:
        return renewal_due_s(self._identity.chain, self._ground.clock.wall_s())

    def _judge(self) -> None:
        """Raise the alarm while the certificate is about to end."""
        ends_s = min(expires_at_s(der) for der in self._identity.chain)
        left_s = ends_s - self._ground.clock.wall_s()
        if left_s >= EXPIRES_SOON_S:
            self._ground.alarms.clear(CERTIFICATE)
            return
        from meshnode.app.diagnosis.diagnosis import RENEWS, span  # noqa: PLC0415 - for one that ends soon

        said = f"this node's membership ends in {span(left_s)}" if left_s > 0 else "it has ended"
        self._ground.alarms.sound(Alarm(CERTIFICATE, said, RENEWS))

    def _is_member(self, peer: NodeId) -> bool:
        return self._mesh.tables.node(peer) is not None and not self._mesh.revoked.has(peer)
