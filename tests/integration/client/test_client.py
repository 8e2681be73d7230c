"""The client against a real gRPC service on a real Unix socket, answering from canned messages.

Commands are judged by the node's own court, so what the client signs is what a node accepts.
"""

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from urllib.parse import quote

import grpc
import pytest

from meshnode.client.authority import Scope, new_key
from meshnode.client.errors import NoNodeError, SilentNodeError
from meshnode.client.home import Home, make_private
from meshnode.client.keyfiles import write_secret
from meshnode.client.mesh import CONNECT_TIMEOUT_S, MeshClient
from meshnode.client.targets import Delivery, NewSession, Selection, Target
from meshnode.core.commands import Court, Receipt, command_from_signed, sign_receipt
from meshnode.core.control import ControlSet, Role, role_entry
from meshnode.core.errors import (
    ConflictError,
    MeshError,
    NotAuthenticatedError,
    NotFoundError,
    PeerError,
    StaleError,
    UnreachableError,
)
from meshnode.core.genesis import Genesis
from meshnode.core.ids import b32, node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.sessions import SessionRecord, State
from meshnode.v1 import local_service_pb2 as pb
from meshnode.v1.coverage_pb2 import Coverage
from meshnode.v1.local_service_pb2_grpc import (
    LocalServiceServicer,
    add_LocalServiceServicer_to_server,
)
from meshnode.v1.node_pb2 import Node
from meshnode.v1.session_pb2 import Session
from meshnode.v1.signed_pb2 import Signed as SignedMessage

pytestmark = pytest.mark.integration

NOW_S = 1_795_132_800.0
GENERATION = 77
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
    errors: list[tuple[grpc.StatusCode, MeshError]] = field(default_factory=list)
    commands: list[Signed] = field(default_factory=list)
    requests: list[object] = field(default_factory=list)
    receipt_key: Key | None = None
    outcome: str = "delivered"
    forge: dict[str, object] = field(default_factory=dict)

    def GetStatus(self, request, context):
        self._fail_if_told(context)
        return pb.GetStatusResponse(name="anna", node_id=NODE_IDS["anna"], pid=1)

    def ListSessions(self, request, context):
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
            and request.node in {"", one.node_name, one.node_id}
            and (request.filter == "all" or one.phase != "CLOSED")
        )

    def ListNodes(self, request, context):
        nodes = [
            Node(
                node_id=node_id,
                name=name,
                state="alive" if name == "anna" else "dead",
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
        return pb.OpenSessionResponse(session_id="s", agent_id=request.agent_id)

    def AttachSession(self, request, context):
        return pb.AttachSessionResponse(session=self.sessions[0])

    def CreateInvite(self, request, context):
        self.requests.append(request)
        return pb.CreateInviteResponse(addresses=["192.0.2.7:7708"])

    def Stop(self, request, context):
        self.requests.append(request)
        return pb.StopResponse(kept=2)

    def SubmitCommand(self, request, context):
        self._fail_if_told(context)
        signed = _from_wire(request.command)
        self.commands.append(signed)
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


@pytest.fixture
def home():
    with TemporaryDirectory() as short:  # a socket's path has 108 bytes; tmp_path takes most
        home = Home(Path(short) / "100% #ü?")
        make_private(home.path)
        make_private(home.run)
        assert home.run.parent == home.path
        yield home


@pytest.fixture
def service(home):
    root, operator = Key.new(CHANCE), Key.new(CHANCE)
    genesis = Genesis((root.public,), 1, "test", CHANCE(16))
    home.genesis.write_bytes(genesis.to_bytes())
    write_secret(home.operator_key, operator.seed)
    write_secret(home.session_root, CHANCE(32))
    control = ControlSet(genesis)
    role = Role(operator.public, "operator", "me", root.public, int(NOW_S), None)
    control.add(role_entry(root, genesis.mesh_id, role, CHANCE))
    service = Service(home, control, genesis.mesh_id)
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        add_LocalServiceServicer_to_server(service, server)
        server.add_insecure_port(_address(home))
        server.start()
        yield service
        server.stop(0).wait()


def _address(home: Home) -> str:
    return "unix:" + quote(str(home.socket))


@pytest.fixture
def environment() -> dict[str, str]:
    return {}


@pytest.fixture
def mesh(home, service, environment):
    with MeshClient(home, environment=environment, now=lambda: NOW_S, chance=CHANCE) as mesh:
        yield mesh


def test_without_a_socket_no_node_is_running(home):
    with pytest.raises(NoNodeError, match="no node is running on this home") as raised:
        MeshClient(home).__enter__()
    assert raised.value.hint == "start one: session-mesh up --detach"
    assert raised.value.exit_code == 6


def test_a_socket_that_nobody_listens_on_is_no_node_either(home):
    home.socket.touch(mode=0o600)
    with MeshClient(home) as mesh, pytest.raises(NoNodeError):
        mesh.status()


def test_a_process_that_holds_the_socket_and_says_nothing_is_named(home):
    home.lock.write_text("7\n")
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(home.socket))
        held.listen(1)
        began_s = time.monotonic()
        with MeshClient(home) as mesh, pytest.raises(SilentNodeError, match=r"pid 7\)") as raised:
            mesh.status()
        assert time.monotonic() - began_s < CONNECT_TIMEOUT_S + 2
    assert raised.value.exit_code == 6


def test_only_members_that_are_alive_have_working_links(mesh):
    anna, berta = mesh.nodes()["nodes"]
    assert anna["links"] == [berta["node_id"]]
    assert berta["links"] == []


def test_the_status_comes_as_plain_values(mesh):
    assert mesh.status()["name"] == "anna"


def test_all_pages_are_followed_up_to_the_limit(mesh, service):
    service.sessions = [session(f"agent-{number}") for number in range(2500)]
    assert len(mesh.list_sessions()["sessions"]) == 2500
    assert [request.next for request in service.requests] == ["", "1000", "2000"]
    service.requests.clear()
    listed = mesh.list_sessions(limit=1200)
    assert len(listed["sessions"]) == 1200
    assert [request.limit for request in service.requests] == [1000, 200]
    assert listed["coverage"]["nodes_heard"] == 2


def test_a_selection_reaches_the_node(mesh, service):
    mesh.list_sessions(Selection("alive", "anna", "review", "me", "a", {"k": "v"}, "cost"))
    (request,) = service.requests
    assert (request.filter, request.node, request.specialization) == ("alive", "anna", "review")
    assert (request.owner, request.sort, dict(request.labels)) == ("me", "cost", {"k": "v"})


def test_cost_leaves_out_what_was_not_asked(mesh, service):
    assert mesh.cost(("model",), since="2026-11-01T00:00:00Z")["records"] == 3
    (request,) = service.requests
    assert request.HasField("since")
    assert not request.HasField("until")


def test_a_session_is_opened_and_attached(mesh, service):
    service.sessions = [session("builder")]
    opened = mesh.open_session(
        NewSession(agent_id="builder", command=("a", "b"), labels={"k": "v"})
    )
    assert opened["agent_id"] == "builder"
    assert list(service.requests[0].command) == ["a", "b"]
    assert mesh.attach_session(opened["session_id"])["agent_id"] == "builder"


def test_an_invite_carries_the_operators_word(mesh, service):
    word = Signed("invite", b"payload", b"mark")
    assert mesh.invite(word, b"s" * 16) == ["192.0.2.7:7708"]
    assert service.requests[0].authorization.payload == b"payload"


def test_stopping_says_how(mesh, service):
    assert mesh.stop(leave=True, sessions="keep") == {"kept": 2, "closed": 0}
    assert service.requests[0].leave
    assert service.requests[0].sessions == "keep"


# resolution


def test_a_session_is_found_by_its_id_by_a_prefix_and_by_its_agent(mesh, service):
    service.sessions = [session("builder"), session("tester", "berta")]
    wanted = service.sessions[1]
    for target in (
        Target(wanted.session_id),
        Target(wanted.session_id[:8]),
        Target("tester"),
        Target("berta/tester"),
        Target(agent_id="tester"),
        Target(session_id=wanted.session_id),
    ):
        assert mesh.resolve(target)["session_id"] == wanted.session_id


def test_a_prefix_of_seven_characters_is_none(mesh, service):
    service.sessions = [session("builder")]
    with pytest.raises(NotFoundError):
        mesh.resolve(Target(service.sessions[0].session_id[:7]))


def test_agent_ids_match_exactly(mesh, service):
    service.sessions = [session("83")]
    with pytest.raises(NotFoundError):
        mesh.resolve(Target("083"))


def test_an_agent_id_beats_a_prefix_of_somebody_elses_session_id(mesh, service):
    stranger = session("stranger", session_id="refactor" + "a" * 18)
    service.sessions = [stranger, session("refactor")]
    assert mesh.resolve(Target("refactor"))["agent_id"] == "refactor"


def test_an_agent_id_with_a_slash_is_found_before_it_is_taken_apart(mesh, service):
    service.sessions = [session("berta/x"), session("x", "berta")]
    assert mesh.resolve(Target("berta/x"))["agent_id"] == "berta/x"


def test_the_live_session_of_an_agent_comes_before_its_ended_ones(mesh, service):
    live = session("builder")
    service.sessions = [session("builder", ended=True), live, session("builder", ended=True)]
    assert mesh.resolve(Target("builder"))["session_id"] == live.session_id


def test_of_ended_sessions_the_last_is_meant(mesh, service):
    last = session("builder", ended=True, ended_at="2026-11-20T09:00:00.000Z")
    service.sessions = [session("builder", ended=True), last, session("builder", ended=True)]
    assert mesh.resolve(Target("builder"))["session_id"] == last.session_id


def test_an_agent_live_twice_is_a_conflict_that_lists_the_candidates(mesh, service):
    service.sessions = [session("builder"), session("builder", "berta")]
    with pytest.raises(ConflictError, match=r"anna/builder.*berta/builder") as raised:
        mesh.steer(Target("builder"), message="hello")
    assert raised.value.exit_code == 7
    assert service.commands == []
    assert mesh.resolve(Target("builder", node="berta"))["node_name"] == "berta"


def test_an_unknown_name_is_not_found_and_the_nearest_is_offered(mesh, service):
    service.sessions = [session("builder")]
    with pytest.raises(NotFoundError) as raised:
        mesh.resolve(Target("bilder"))
    assert raised.value.hint == 'did you mean "builder"?'


def test_nodes_are_found_by_name_by_id_and_by_prefix(mesh):
    berta = NODE_IDS["berta"]
    assert [mesh.node_id_of(name) for name in ("berta", berta, berta[:8])] == [berta] * 3
    with pytest.raises(NotFoundError):
        mesh.node_id_of("carla")


# commands


def test_a_steer_is_signed_for_its_session_and_its_receipt_verified(mesh, service):
    service.sessions = [session("builder", "berta")]
    said = mesh.steer(Target("builder"), message="go on", direction="north", mode="now")
    (signed,) = service.commands
    command = command_from_signed(signed)
    assert command.args == {"direction": "north", "message": "go on", "mode": "now"}
    assert (command.node, command.session) == (NODE_IDS["berta"], service.sessions[0].session_id)
    assert command.epoch == 2**63 + 5
    assert (command.issued_s, command.expires_s) == (NOW_S, NOW_S + 300)
    assert set(said) == {
        "command_id",
        "session_id",
        "node_id",
        "outcome",
        "at",
        "detail",
        "receipt",
        "receipt_verified",
    }
    assert said["command_id"] == b32(command.command_id)
    assert (said["outcome"], said["at"]) == ("delivered", "2026-11-20T00:00:00.000Z")
    assert said["receipt_verified"] is True


def test_a_kill_lives_half_a_day_and_says_what_it_found(mesh, service):
    service.sessions = [session("builder")]
    service.outcome = "applied"
    said = mesh.kill(Target("builder"), grace_s=9)
    command = command_from_signed(service.commands[0])
    assert command.args == {"force": False, "grace_s": 9}
    assert command.expires_s - command.issued_s == 43200
    assert said["processes"] == {"found": 2, "gone": 2, "survivors": []}


def test_force_leaves_no_grace(mesh, service):
    service.sessions = [session("builder")]
    mesh.kill(Target("builder"), force=True)
    assert command_from_signed(service.commands[0]).args == {"force": True, "grace_s": 0}


def test_killing_what_has_ended_changes_nothing_and_is_no_error(mesh, service):
    service.sessions = [session("builder", ended=True)]
    said = mesh.kill(Target("builder"))
    assert (said["outcome"], said["detail"]) == ("applied", "already ended")
    assert (said["receipt"], said["receipt_verified"]) == (None, False)
    assert service.commands == []


def test_steering_what_has_ended_is_a_conflict(mesh, service):
    service.sessions = [session("builder", ended=True)]
    with pytest.raises(ConflictError, match="has ended"):
        mesh.steer(Target("builder"), message="hello")
    assert service.commands == []


def test_register_goes_to_this_node_under_its_journal_generation(mesh, service):
    said = mesh.register("789", "data-analysis", {"load": "0.3"})
    command = command_from_signed(service.commands[0])
    assert (command.node, command.session, command.epoch) == (NODE_IDS["anna"], "", GENERATION)
    assert command.args == {
        "agent_id": "789",
        "specialization": "data-analysis",
        "attributes": {"load": "0.3"},
    }
    assert (said["agent_id"], said["session_id"]) == ("789", None)


def test_logs_are_read_with_a_signed_request(mesh, service):
    service.sessions = [session("builder", ended=True)]
    assert b"".join(mesh.logs(Target("builder"), tail=5)) == b"tail 5\n\xff\n"


def test_a_log_that_is_refused_is_a_mesh_error(mesh, service):
    service.sessions = [session("builder")]
    service.errors = [(grpc.StatusCode.NOT_FOUND, NotFoundError("no log", "none"))]
    with pytest.raises(NotFoundError, match="no log"):
        list(mesh.logs(Target("builder")))


@pytest.mark.parametrize(
    "forge",
    [
        {"command_id": b"x" * 16},
        {"command_hash": b"x" * 32},
        {"node": NODE_IDS["berta"]},
        {"session": "another"},
        {"mesh": "another"},
    ],
    ids=lambda forge: next(iter(forge)),
)
def test_a_receipt_about_something_else_is_refused(mesh, service, forge):
    service.sessions = [session("builder")]
    service.forge = forge
    with pytest.raises(PeerError, match="receipt is not genuine"):
        mesh.steer(Target("builder"), message="hello")


def test_a_receipt_that_another_key_signed_is_refused(mesh, service):
    service.sessions = [session("builder")]
    service.receipt_key = NODE_KEYS["berta"]
    with pytest.raises(PeerError, match="receipt is not genuine"):
        mesh.kill(Target("builder"))


def test_a_stale_command_is_signed_anew_once_for_what_is_there_now(mesh, service):
    stale = session("builder", session_epoch=1)
    service.sessions = [stale]
    service.errors = [(grpc.StatusCode.ABORTED, StaleError("an earlier start"))]
    assert mesh.steer(Target("builder"), message="hello")["outcome"] == "delivered"
    assert len(service.commands) == 1
    service.errors = [(grpc.StatusCode.ABORTED, StaleError("an earlier start"))] * 2
    with pytest.raises(StaleError):
        mesh.steer(Target("builder"), message="hello")


def test_a_retry_of_a_command_id_sends_the_very_same_command(mesh, service):
    service.sessions = [session("builder")]
    delivery = Delivery(command_id=b32(CHANCE(16)))
    said = [mesh.steer(Target("builder"), message="go", delivery=delivery) for _ in range(2)]
    first, second = service.commands
    assert first == second
    assert [one["command_id"] for one in said] == [delivery.command_id] * 2


def test_a_command_id_that_ordered_something_else_is_a_conflict(mesh, service):
    service.sessions = [session("builder")]
    delivery = Delivery(command_id=b32(CHANCE(16)))
    mesh.steer(Target("builder"), message="go", delivery=delivery)
    with pytest.raises(ConflictError, match="ordered something else"):
        mesh.steer(Target("builder"), message="stop", delivery=delivery)


def test_an_unanswered_command_says_how_to_repeat_it(mesh, service):
    service.sessions = [session("builder")]
    service.errors = [(grpc.StatusCode.DEADLINE_EXCEEDED, UnreachableError("berta is away"))]
    with pytest.raises(UnreachableError, match="berta is away") as raised:
        mesh.steer(Target("builder"), message="go")
    command_id = raised.value.hint.rpartition(" ")[2]
    again = mesh.steer(Target("builder"), message="go", delivery=Delivery(command_id=command_id))
    assert again["command_id"] == command_id


# who commands


def test_a_home_without_a_role_cannot_command(mesh, service, home):
    home.operator_key.unlink()
    service.sessions = [session("builder")]
    with pytest.raises(NotAuthenticatedError, match="look but not command"):
        mesh.steer(Target("builder"), message="hello")
    assert mesh.list_sessions()["sessions"]


def test_a_key_from_the_environment_is_used(mesh, service, home, environment):
    made = new_key(home, Scope(("read",)), 60, NOW_S, CHANCE)
    environment["SESSION_API_KEY"] = made["key"]
    service.sessions = [session("builder")]
    with pytest.raises(MeshError, match="this key may not steer") as raised:
        mesh.steer(Target("builder"), message="hello")
    assert raised.value.exit_code == 5


# errors


def test_the_nodes_error_comes_back_as_itself(mesh, service):
    told = ConflictError("it is so", "do that")
    service.errors = [(grpc.StatusCode.ALREADY_EXISTS, told)]
    with pytest.raises(ConflictError) as raised:
        mesh.status()
    assert (raised.value.message, raised.value.hint) == ("it is so", "do that")


def test_an_error_of_an_unknown_kind_is_a_plain_one(mesh, service):
    told = MeshError("from the future")
    told.code = "unheard_of"
    service.errors = [(grpc.StatusCode.INTERNAL, told)]
    with pytest.raises(MeshError, match="from the future") as raised:
        mesh.status()
    assert raised.value.exit_code == 1
