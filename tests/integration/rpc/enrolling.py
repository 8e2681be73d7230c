"""Enrolment on the wire for tests: an admitter with its invites, devices, and impostors."""

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from integration.rpc.fleet import WAIT_S, Founded, Member, now_s, serving

from meshnode.app.membership.admission import AdmissionDesk, Admitter
from meshnode.core.control.control import ControlSet
from meshnode.core.control.roles import Authorization, authorize
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key
from meshnode.core.membership.enrolment import Invite, apply_with
from meshnode.core.membership.genesis import genesis_from_bytes
from meshnode.node.homes.books import StoredInvites
from meshnode.rpc.enrolment import EnrolmentServicer, ask_to_join
from meshnode.rpc.servers import joiners_server
from meshnode.rpc.tls import Credentials, Identity
from meshnode.store.database import Database
from meshnode.v1 import enrolment_service_pb2 as pb
from meshnode.v1 import enrolment_service_pb2_grpc as pb_grpc

SECRET = b"s" * 16


@dataclass
class TurnedClock:
    """A clock that a test turns; `stride_s` passes whenever it is looked at."""

    wall: float = field(default_factory=now_s)
    steady: float = 1000.0
    stride_s: float = 0.0

    def wall_s(self) -> float:
        return self.wall

    def steady_s(self) -> float:
        self.steady += self.stride_s
        return self.steady


class Desk:
    """An admitter with its book on disk, and the invites it makes."""

    def __init__(self, mesh: Founded, database: Database) -> None:
        self.mesh = mesh
        self.clock = TurnedClock()
        self.member = mesh.the_admitter()
        self.control = ControlSet(mesh.genesis)
        admitter = Admitter(
            mesh.admitter, mesh.genesis, self.control, lambda: mesh.admitter_certificate
        )
        self.desk = AdmissionDesk(admitter, StoredInvites(database), self.clock, mesh.chance)
        self.desk.addresses = lambda: ("192.0.2.1:7707",)

    async def invite(
        self,
        address: str,
        *,
        role: str = "",
        uses: int = 1,
        ttl_s: int = 600,
        labels: dict[str, str] | None = None,
        for_key: bytes = b"",
    ) -> Invite:
        """Make an invite and keep it."""
        mesh, invite_id, at_s = self.mesh, self.mesh.chance(16), int(self.clock.wall_s())
        word = authorize(
            mesh.root,
            Authorization(
                mesh.mesh_id,
                invite_id,
                self.member.node_id,
                role,
                uses,
                at_s,
                at_s + ttl_s,
                b"",
            ),
        )
        await self.desk.invite(word, SECRET, labels, for_key)
        return Invite(
            mesh.root.public,
            mesh.mesh_id,
            self.member.node_id,
            invite_id,
            SECRET,
            at_s + ttl_s,
            (address,),
            bool(role),
        )

    def servicer(self, kind: type[EnrolmentServicer] = EnrolmentServicer) -> EnrolmentServicer:
        """Return what answers strangers for this desk."""
        return kind(self.desk, self.mesh.mesh_id, self.member.node_id, self.clock)


@asynccontextmanager
async def answering(servicer: pb_grpc.EnrolmentServiceServicer, identity: Identity):
    server = await joiners_server(servicer)
    async with serving(server, identity.for_joiners) as address, asyncio.timeout(WAIT_S):
        yield address


class Device:
    """A device that wants to be a member."""

    def __init__(self, mesh: Founded) -> None:
        self.mesh = mesh
        self.key, self.operator = Key.new(mesh.chance), Key.new(mesh.chance)

    async def joins(self, invite: Invite) -> pb.JoinResponse:
        operator = self.operator if invite.commands else None
        application = apply_with(self.key, operator, invite, "pi", self.mesh.chance(16))
        _, response = await asyncio.to_thread(ask_to_join, invite, application)
        return response

    def member(self, answer: pb.JoinResponse) -> Member:
        """Become what the answer makes of it."""
        genesis, chain = genesis_from_bytes(answer.genesis), tuple(answer.certificates)
        identity = Identity(Credentials(self.key, genesis, chain, now_s, self.mesh.chance))
        return Member(self.key, node_id_of(self.key.public), chain, identity)


class Impostor(pb_grpc.EnrolmentServiceServicer):
    """Answers every applicant with what it likes."""

    def __init__(self, answer: Callable[[pb.JoinRequest], pb.JoinResponse]) -> None:
        self.answer = answer
        self.asked = 0

    async def Join(self, request, context):
        self.asked += 1
        return self.answer(request)
