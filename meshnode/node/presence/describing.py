"""What a running node says of itself: `status`, and what `doctor` reads of it.

Invariant: describing changes nothing, and waits for nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from meshnode.app.queries.views import Source, Status, Trouble
from meshnode.client.home import read_plain
from meshnode.node.presence.finding import MDNS
from meshnode.node.version import BUILD, VERSION
from meshnode.store.database import VERSION as SCHEMA

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.app.audit.alarms import Alarms
    from meshnode.app.sessions.sessions import OwnSessions
    from meshnode.client.home import Home
    from meshnode.node.ledger.following import Following
    from meshnode.node.presence.finding import Finding
    from meshnode.node.presence.listeners import Listeners
    from meshnode.node.world import NodeWorld


class Describing(msgspec.Struct, frozen=True):
    """The parts of a node that have something to say."""

    home: Home
    name: Callable[[], str]
    started_at_s: float
    seeds: tuple[str, ...]
    world: NodeWorld
    listeners: Listeners
    sessions: OwnSessions
    finding: Finding
    following: Following
    alarms: Alarms

    def status(self) -> Status:
        """Describe the node now."""
        import psutil  # noqa: PLC0415 - 0.7 MiB that nobody misses before somebody asks

        process = psutil.Process()
        mesh = self.world.mesh
        return Status(
            node_id=mesh.self_id,
            name=self.name(),
            mesh_id=mesh.genesis.mesh_id,
            mesh_name=mesh.genesis.name,
            version=VERSION,
            build=BUILD,
            schema=SCHEMA,
            pid=process.pid,
            started_at_s=self.started_at_s,
            listen=self.listeners.members.bound,
            enrolment=self.listeners.joiners.bound,
            nodes_alive=len(mesh.liveness.alive),
            links=len(mesh.overlay.links),
            sessions=len(self.sessions.live()),
            mdns=self.finding.mdns,
            rss_bytes=process.memory_info().rss,
            role=self._role(),
            troubles=tuple(
                Trouble(peer, reason, at_s)
                for peer, (reason, at_s) in self.world.troubles.items()
                if peer not in mesh.overlay.retired  # whom nobody misses
                and peer != MDNS  # who is on the same network is in nobody's way
            ),
            sources=tuple(
                Source(state.source, state.path, state.records, state.detail)
                for state in self.following.states.values()
            ),
            heard_by_mdns=self.finding.heard_by_mdns,
            seeds=self.seeds,
            loop_lag_s=mesh.lag_s,
            feeds_held=len(mesh.tables.origins()),
            feeds_wanted=len(mesh.replication.fetching),
            other_meshes=self.world.troubles.get(MDNS, ("", 0.0))[0],
            alarms=self.alarms.standing(),
        )

    def _role(self) -> str:
        try:
            operator = bytes.fromhex(read_plain(self.home.operator_public).decode().strip())
        except (OSError, ValueError):
            return ""
        return self.world.mesh.control.role_of(operator)
