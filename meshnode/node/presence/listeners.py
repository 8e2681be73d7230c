"""Binding a node's listeners and saying where they are."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from msgspec.structs import replace

from meshnode.core.errors import ConflictError
from meshnode.discovery.seeds import PORT_MAX, parse_address
from meshnode.node.presence.addresses import WILDCARDS, joined, joiners_at, listening_at
from meshnode.rpc.servers import bind, joiners_server, members_server

if TYPE_CHECKING:
    from collections.abc import Iterable

    import grpc.aio

    from meshnode.node.presence.addresses import Listening
    from meshnode.node.presence.own_socket import OwnSocket
    from meshnode.rpc.commands import CommandServicer
    from meshnode.rpc.enrolment import EnrolmentServicer
    from meshnode.rpc.guard import Membership
    from meshnode.rpc.links import LinkServicer
    from meshnode.rpc.servers import Service
    from meshnode.rpc.tls import Identity

LAST_ANSWER_S = 1.0  # for a call that is being answered
_log = logging.getLogger("session_mesh.node")


class Listeners:
    """The members' port and the joiners' port."""

    def __init__(self, identity: Identity, listen: str, advertise: str | None) -> None:
        self._identity = identity
        self._advertise = advertise
        self._host, self._port = parse_address(listen)
        self.own: OwnSocket | None = None  # for this machine's own user
        self._servers: list[grpc.aio.Server] = []  # for members, and for joiners
        self.members = listening_at(self._host, self._port, advertise)
        self.joiners = self.members

    async def bind_members(
        self,
        links: LinkServicer,
        commands: CommandServicer,
        membership: Membership,
        more: Iterable[Service],
    ) -> None:
        """Take the members' port; raises ConflictError if it is in use."""
        server = await members_server(links, commands, membership, more)
        port = bind(server, joined(self._host, self._port), self._identity.for_members)
        self.members = listening_at(self._host, port, self._advertise)
        self._servers.append(server)

    async def bind_joiners(self, enrolment: EnrolmentServicer) -> None:
        """Take the port after it, or any other if that is taken."""
        server = await joiners_server(enrolment)
        credentials = self._identity.for_joiners
        wanted = self.members.port + 1 if self._port and self._port < PORT_MAX else 0
        try:
            port = bind(server, joined(self._host, wanted), credentials)
        except ConflictError:
            port = bind(server, joined(self._host, 0), credentials)
            _log.warning("port %d is in use: joiners are served on port %d", wanted, port)
        self.joiners = joiners_at(port, self.members)
        self._servers.append(server)

    @property
    def are_everywhere(self) -> bool:
        """Whether what others are told follows from this machine's interfaces."""
        return self._host in WILDCARDS and not self._advertise

    def nearby(self) -> Listening:
        """Return where nodes of the same network find us, which mDNS tells.

        What is advertised is for others, whom a router or a tunnel leads here, and who is on its
        inner side may find that shut. It is told here too where it is all that can be dialled, or
        an address of this machine, which somebody has chosen.
        """
        if not self._advertise:
            return self.members
        try:
            here = listening_at(self._host, self.members.port, None)
        except OSError:  # such as too many open files: the interfaces cannot be seen
            return self.members
        if here.loopback_only or not here.ipv4 or {*here.hosts} & {*self.members.hosts}:
            return self.members
        return here

    def move(self, hosts: tuple[str, ...]) -> bool:
        """Take what this machine's interfaces carry now; whether others find us elsewhere by it."""
        if not self.are_everywhere or set(hosts) == set(self.members.hosts):
            return False
        self.members = replace(self.members, hosts=hosts)
        self.joiners = replace(self.joiners, hosts=hosts)
        return True

    async def start(self) -> None:
        """Begin to answer."""
        for server in self._servers:
            await server.start()

    async def close(self, grace_s: float) -> None:
        """Answer nobody any more, once what is under way is answered, or that long was waited."""
        for server in self._servers:
            await server.stop(grace_s)
        if self.own:
            await self.own.stop(grace_s)

    async def close_to_others(self) -> None:
        """Answer nobody any more but this machine's own user."""
        for server in self._servers:
            await server.stop(LAST_ANSWER_S)
