"""A real gRPC service that answers from canned messages.

Commands are judged by the node's own court, so what the client signs is what a node accepts.
"""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from threading import Event
from urllib.parse import quote

import grpc

from meshnode.client.home import Home, make_private
from meshnode.client.keys.keyfiles import write_secret
from meshnode.core.commands.commands import Court, Receipt, command_from_signed, sign_receipt
from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import Entry, entry_from_signed, role_entry
from meshnode.core.control.roles import Role
from meshnode.core.errors import MeshError, UnreachableError
from meshnode.core.ids import b32, node_id_of, nodes_meant
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.genesis import Genesis
from meshnode.core.sessions.sessions import SessionRecord, State
from meshnode.v1 import local_service_pb2 as pb
from meshnode.v1.coverage_pb2 import Coverage
from meshnode.v1.local_service_pb2_grpc import (
    LocalServiceServicer,
    add_LocalServiceServicer_to_server,
)
from meshnode.v1.node_pb2 import Node
from meshnode.v1.order_service_pb2 import ListOrdersResponse, StandingOrder
from meshnode.v1.order_service_pb2_grpc import (
    OrderServiceServicer,
    add_OrderServiceServicer_to_server,
)
from meshnode.v1.session_pb2 import Session
from meshnode.v1.signed_pb2 import Signed as SignedMessage

NOW_S = 1_795_132_800.0
GENERATION = 77
CALLS_AT_ONCE = 24
HANG_S_MAX = 20.0
CHANCE = Random(7).randbytes
NODE_KEYS = {name: Key.new(CHANCE) for name in ("anna", "berta")}
NODE_IDS = {name: node_id_of(key.public) for name, key in NODE_KEYS.items()}


def session(agent_id: str, node: str = "anna", *, ended: bool = False, **changes) -> Session:
    fields = {
        "session_id": b32(CHANCE(16)),
        "agent_id": agent_id,
        "node_id": NODE_IDS[node],
        "node_name": node,
        "state": "closed" if ended else "running",
        "phase": "CLOSED" if ended else "ACTIVE",
        "alive": not ended,
        "created_at": "2026-11-20T00:00:00.000Z",
        "session_epoch": 2**63 + 5,
    }
    if ended:
        fields["ended_at"] = "2026-11-20T00:01:00.000Z"
    return Session(**fields | changes)


@dataclass
class Service(LocalServiceServicer):
    """Answers from what a test put into it."""

    home: Home
    control: ControlSet
    mesh_id: str
    sessions: list[Session] = field(default_factory=list)
    opened: dict[str, str] = field(default_factory=lambda: {"session_id": "s"})
    errors: list[tuple[grpc.StatusCode, MeshError]] = field(default_factory=list)
    listing_errors: list[tuple[grpc.StatusCode, MeshError]] = field(default_factory=list)
    readings: list[list[bytes | None]] = field(default_factory=list)  # of who follows output
    hangs_s: float = HANG_S_MAX
    commands: list[Signed] = field(default_factory=list)
    waits: list[bool] = field(default_factory=list)
    requests: list[object] = field(default_factory=list)
    receipt_key: Key | None = None
    outcome: str = "delivered"
    forge: dict[str, object] = field(default_factory=dict)
    role: str = "operator"
    entries: list[Entry] = field(default_factory=list)
    away: set[str] = field(default_factory=set)
    state_of_others: str = "dead"
    hanging: set[str] = field(default_factory=set)
    release: Event = field(default_factory=Event)
    orders: list[StandingOrder] = field(default_factory=list)

    def GetStatus(self, request, context):
        self._fail_if_told(context)
        return pb.GetStatusResponse(name="anna", node_id=NODE_IDS["anna"], pid=1, role=self.role)

    def ListSessions(self, request, context):
        if self.listing_errors:
            _refuse(context, *self.listing_errors.pop(0))
        self.requests.append(request)
        found = [one for one in self.sessions if self._fits(one, request)]
        begin = int(request.next or 0)
        end = begin + request.limit
        following = str(end) if end < len(found) else ""
        return pb.ListSessionsResponse(
            sessions=found[begin:end],
            coverage=Coverage(nodes_known=2, nodes_heard=2),
            next=following,
        )

    def _fits(self, one, request):
        return (
            one.session_id.startswith(request.session_id)
            and request.agent_id in {"", one.agent_id}
            and (not request.node or nodes_meant(request.node, {one.node_id: one.node_name}))
            and (request.filter == "all" or one.phase != "CLOSED")
        )

    def ListNodes(self, request, context):
        nodes = [
            Node(
                node_id=node_id,
                name=name,
                state="alive" if name == "anna" else self.state_of_others,
                links=[one for one in NODE_IDS.values() if one != node_id],
                self=name == "anna",
                journal_generation=GENERATION,
            )
            for name, node_id in NODE_IDS.items()
        ]
        return pb.ListNodesResponse(nodes=nodes)

    def FindAgents(self, request, context):
        return pb.FindAgentsResponse()

    def GetCost(self, request, context):
        self.requests.append(request)
        return pb.GetCostResponse(records=3, price_source="shipped")

    def OpenSession(self, request, context):
        self.requests.append(request)
        return pb.OpenSessionResponse(agent_id=request.agent_id, **self.opened)

    def AttachSession(self, request, context):
        self._fail_if_told(context)
        return pb.AttachSessionResponse(session=self.sessions[0])

    def CreateInvite(self, request, context):
        self.requests.append(request)
        return pb.CreateInviteResponse(addresses=["192.0.2.7:7708"])

    def Stop(self, request, context):
        self.requests.append(request)
        return pb.StopResponse(kept=2)

    def AddControl(self, request, context):
        entry = _from_wire(request.entry)
        self.control.add(entry, NOW_S)
        self.entries.append(entry_from_signed(entry, self.mesh_id))
        return pb.AddControlResponse()

    def SubmitCommand(self, request, context):
        self._fail_if_told(context)
        signed = _from_wire(request.command)
        self.commands.append(signed)
        self.waits.append(request.until_accepted)
        if request.node_id in self.away:
            away = UnreachableError("it cannot be reached", "session-mesh nodes")
            _refuse(context, grpc.StatusCode.UNAVAILABLE, away)
        if request.node_id in self.hanging:
            self.release.wait(HANG_S_MAX)
        command = self._judge(signed, context)
        fields = {
            "mesh": command.mesh,
            "command_id": command.command_id,
            "command_hash": signed.hash,
            "node": command.node,
            "session": command.session,
            "outcome": self.outcome,
            "at_s": NOW_S,
            "processes": {"found": 2, "gone": 2, "survivors": []},
        }
        owner = next(name for name, one in NODE_IDS.items() if one == request.node_id)
        key = self.receipt_key or NODE_KEYS[owner]
        receipt = sign_receipt(key, Receipt(**fields | self.forge))
        return pb.SubmitCommandResponse(receipt=_to_wire(receipt))

    def ReadSessionLog(self, request, context):
        self._fail_if_told(context)
        command = self._judge(_from_wire(request.command), context)
        if command.args.get("follow"):
            for piece in self.readings.pop(0):
                if piece is None:  # from here on nothing is said
                    self.release.wait(self.hangs_s)
                    continue
                yield pb.ReadSessionLogResponse(output=piece)
            return
        yield pb.ReadSessionLogResponse(output=f"tail {command.args['tail']}\n".encode())
        yield pb.ReadSessionLogResponse(output=b"\xff\n")

    def _judge(self, signed, context):
        claimed = command_from_signed(signed)
        found = next((one for one in self.sessions if one.session_id == claimed.session), None)
        court = Court(self.mesh_id, claimed.node, self.control, GENERATION)
        try:
            return court.judge(signed, found and _record(found), "", NOW_S)
        except MeshError as error:
            _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, error)

    def _fail_if_told(self, context):
        if self.errors:
            _refuse(context, *self.errors.pop(0))


class Orders(OrderServiceServicer):
    """Lists what a test put into the service."""

    def __init__(self, service: Service) -> None:
        self.service = service

    def ListOrders(self, request, context):
        return ListOrdersResponse(orders=self.service.orders)


@contextmanager
def served(home: Home):
    """Serve a home that belongs to an operator; yields the service."""
    root, operator = Key.new(CHANCE), Key.new(CHANCE)
    genesis = Genesis((root.public,), 1, "test", CHANCE(16))
    home.genesis.write_bytes(genesis.to_bytes())
    write_secret(home.operator_key, operator.seed)
    write_secret(home.session_root, CHANCE(32))
    control = ControlSet(genesis)
    role = Role(operator.public, "operator", "me", root.public, int(NOW_S), None)
    control.add(role_entry(root, genesis.mesh_id, role, CHANCE), 0.0)
    service = Service(home, control, genesis.mesh_id)
    with ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
        server = grpc.server(pool)
        add_LocalServiceServicer_to_server(service, server)
        add_OrderServiceServicer_to_server(Orders(service), server)
        server.add_insecure_port("unix:" + quote(str(home.socket)))
        server.start()
        yield service
        service.release.set()
        server.stop(0).wait()


@contextmanager
def short_home():
    """Make a home whose socket has room: a path of one has 108 bytes; tmp_path takes most."""
    with TemporaryDirectory() as short:
        home = Home(Path(short) / "100% #ü?")
        make_private(home.path)
        make_private(home.run)
        assert home.run.parent == home.path
        yield home


def _record(one: Session) -> SessionRecord:
    return SessionRecord(
        one.session_id, one.session_epoch, one.agent_id, State(one.state), NOW_S, NOW_S
    )


def _refuse(context, status, error):
    value = {"code": error.code, "message": error.message, "hint": error.hint}
    context.set_trailing_metadata((("session-mesh-error-bin", json.dumps(value).encode()),))
    context.abort(status, error.message)


def _from_wire(message) -> Signed:
    return Signed(message.type, message.payload, message.signature)


def _to_wire(signed: Signed) -> SignedMessage:
    return SignedMessage(type=signed.type, payload=signed.payload, signature=signed.signature)
