"""`kill`: end agents, with everything they started."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshnode.client.durations import parse_duration
from meshnode.client.errors import MeshError, UsageError
from meshnode.client.targets import Delivery, Target
from session_mesh.call import Call
from session_mesh.options import CommandId, Labels, Node, Timeout, Wait, alive, target_of
from session_mesh.orders import carry_out, chosen
from session_mesh.render import Table, View
from session_mesh.verbs import verb

if TYPE_CHECKING:
    from meshnode.client.mesh import MeshClient


COLUMNS = ("SESSION", "AGENT", "NODE", "STATE")


@verb(
    "session-mesh kill builder",
    "session-mesh kill --agent-id 456 --force",
    "session-mesh kill --all --spec crawler --dry-run",
)
def app(
    call: Call,
    given: Annotated[
        list[str] | None, typer.Argument(metavar="[ID]...", help="Session or agent ids.")
    ] = None,
    session: Annotated[
        list[str] | None, typer.Option("--session", metavar="ID", help="A session id.")
    ] = None,
    agent_id: Annotated[
        list[str] | None, typer.Option("--agent-id", metavar="A", help="An agent id, exactly.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="At once, without asking.")] = False,
    grace: Annotated[str, typer.Option("--grace", metavar="D", help="Time to end by itself.")] = (
        "5s"
    ),
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    everyone: Annotated[bool, typer.Option("--all", help="Every session alive.")] = False,
    spec: Annotated[str, typer.Option("--spec", help="With --all: of this one.")] = "",
    node: Node = "",
    label: Labels = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show who is meant.")] = False,
    timeout: Timeout = "10s",
    command_id: CommandId = "",
    wait: Wait = "delivered",
) -> View:
    """End agents with all they started.

    Says what was found and what survived. A session that has ended already is left alone.
    """
    targets = [
        *(target_of(name, "", "", node) for name in given or ()),
        *(target_of("", name, "", node) for name in session or ()),
        *(target_of("", "", name, node) for name in agent_id or ()),
    ]
    _check(targets, everyone=everyone, narrowed=bool(spec or label))
    if not (yes or force or dry_run or call.can_ask):
        raise UsageError("kill asks first, and there is no terminal", "say --yes or --force")
    delivery = Delivery(parse_duration(timeout), command_id, wait)
    grace_s = parse_duration(grace)
    many = everyone or len(targets) > 1
    if many and command_id:
        raise UsageError("--command-id is for one session")
    with call.mesh() as mesh:
        if everyone:
            targets = chosen(mesh, alive(spec, node, label), delivery)
        if dry_run:
            return _dry_run(mesh, targets)
        if not (yes or force):
            targets = _asked(call, mesh, targets)
        return carry_out(
            targets,
            lambda target: mesh.kill(target, force=force, grace_s=grace_s, delivery=delivery),
            many=many,
        )


def _check(targets: list[Target], *, everyone: bool, narrowed: bool) -> None:
    if everyone and targets:
        raise UsageError("--all and single sessions", "give one of them")
    if narrowed and not everyone:
        raise UsageError("--spec and --label go with --all")
    if not everyone and not targets:
        raise UsageError("which session?", "give an ID, --agent-id A, --session ID, or --all")


def _asked(call: Call, mesh: "MeshClient", targets: list[Target]) -> list[Target]:
    sessions = [mesh.resolve(target) for target in targets]
    if not sessions:
        return []
    names = ", ".join(f"{one['node_name']}/{one['agent_id']}" for one in sessions)
    if not call.confirm(f"kill {names}?"):
        raise MeshError("nothing was killed")
    return [Target(session_id=one["session_id"]) for one in sessions]


def _dry_run(mesh: "MeshClient", targets: list[Target]) -> View:
    sessions: list[dict[str, Any]] = [mesh.resolve(target) for target in targets]
    rows = [
        (one["session_id"], one["agent_id"], one["node_name"], one["state"]) for one in sessions
    ]
    return View(
        value={"sessions": sessions},
        human=Table(
            ("SESSION", "AGENT", "NODE", "STATE"),
            rows,
            empty="no session matches",
            flexible=("AGENT", "NODE"),
        ),
        records="sessions",
        ids=[one["session_id"] for one in sessions],
    )
