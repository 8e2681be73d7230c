"""`kill`: end agents, with everything they started."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshnode.client.commands.fanning import INTERRUPTED
from meshnode.client.durations import parse_duration
from meshnode.client.errors import UsageError
from meshnode.client.targets.targets import Delivery, Target, Terms
from session_mesh.arguments.completing import agents, listed, only, specializations
from session_mesh.arguments.options import (
    CommandId,
    Grace,
    Labels,
    Node,
    Timeout,
    Wait,
    narrowed,
    several,
    target_of,
)
from session_mesh.call import Call
from session_mesh.orders.orders import Aim, asked, carry_out, chosen, sessions_of
from session_mesh.output import words
from session_mesh.output.render import View
from session_mesh.output.tables import Table
from session_mesh.verbs import verb

if TYPE_CHECKING:
    from meshnode.client.commands.fanning import Aimed
    from meshnode.client.mesh import MeshClient


@verb(
    "session-mesh kill builder",
    "session-mesh kill --agent-id 456 --force",
    "session-mesh kill --all --spec crawler --dry-run",
    "session-mesh kill berta/builder --standing --expires 3d --yes",
)
def app(
    call: Call,
    given: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ID]...", help="Session or agent ids.", autocompletion=agents),
    ] = None,
    session: Annotated[
        list[str] | None,
        typer.Option(
            "--session",
            metavar="ID",
            help="A session id; several: a,b.",
            autocompletion=listed(only("session_id", ended=False)),
        ),
    ] = None,
    agent_id: Annotated[
        list[str] | None,
        typer.Option(
            "--agent-id",
            metavar="A",
            help="An agent id, exactly; repeat for more.",
            autocompletion=only("agent_id", ended=False),
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="At once, without asking.")] = False,
    grace: Grace = "5s",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    everyone: Annotated[bool, typer.Option("--all", help="Every session not ended.")] = False,
    spec: Annotated[
        str, typer.Option("--spec", help="With --all: of this one.", autocompletion=specializations)
    ] = "",
    node: Node = "",
    label: Labels = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show who is meant.")] = False,
    standing: Annotated[
        bool, typer.Option("--standing", help="Who cannot be reached ends when it returns.")
    ] = False,
    expires: Annotated[
        str,
        typer.Option(
            "--expires", metavar="D", help="With --standing: 24h unless told, 7d at most."
        ),
    ] = "",
    timeout: Timeout = "10s",
    command_id: CommandId = "",
    wait: Wait = "delivered",
) -> View:
    """End agents with all they started.

    Says what was found and what survived. A session that has ended already is left alone. Several
    are ended 16 at a time; who cannot be reached holds up no other. With --standing an order waits
    for those on all nodes: session-mesh orders lists it, and takes it back.
    """
    from meshnode.client.commands.standing import kill_or_park  # noqa: PLC0415 - --help needs no gRPC

    targets = _named(given or [], several(session), agent_id or [], node)
    _check(targets, everyone=everyone, narrowed=bool(spec or label))
    if not (yes or force or dry_run or call.can_ask):
        raise UsageError("kill asks first, and there is no terminal", "say --yes or --force")
    if expires and not standing:
        raise UsageError("--expires goes with --standing")
    delivery = Delivery(parse_duration(timeout), command_id, wait)
    if command_id and (everyone or standing or len(targets) > 1):
        raise UsageError("--command-id is for one session, and not for --standing")
    terms = Terms(parse_duration(expires or "24h"), force, parse_duration(grace)).checked()
    wanted = narrowed(spec, node, label)
    with call.mesh() as mesh:
        aim = (
            chosen(mesh, wanted, delivery, "kill", unheard_too=standing)
            if everyone
            else Aim(targets)
        )
        if dry_run:
            return _dry_run(mesh, aim)
        if not (yes or force):
            aim = asked(call, mesh, aim, "kill")

        def end(target: "Aimed") -> dict[str, Any]:
            if standing:
                return kill_or_park(mesh, target, terms, delivery)
            return mesh.kill(target, force=force, grace_s=terms.grace_s, delivery=delivery)

        view = carry_out(call, mesh, aim, end)
        is_left = standing and everyone and view.exit_code != INTERRUPTED
        return _waiting(mesh, aim, view, terms) if is_left else view


def _named(
    given: Sequence[str], session: Sequence[str], agent_id: Sequence[str], node: str
) -> list[Target]:
    """Take several that were named in one way; raises UsageError for several ways."""
    if sum(map(bool, (given, session, agent_id))) > 1:
        hint = "give one kind, as often as you like: ID, --session ID, --agent-id A"
        raise UsageError("the sessions are named in several ways", hint)
    return [
        *(target_of(name, "", "", node) for name in given),
        *(target_of("", name, "", node) for name in session),
        *(target_of("", "", name, node) for name in agent_id),
    ]


def _check(targets: list[Target], *, everyone: bool, narrowed: bool) -> None:
    if everyone and targets:
        raise UsageError("--all and single sessions", "give one of them")
    if narrowed and not everyone:
        raise UsageError("--spec and --label go with --all")
    if not everyone and not targets:
        raise UsageError("which session?", "give an ID, --agent-id A, --session ID, or --all")


def _waiting(mesh: "MeshClient", aim: Aim, view: View, terms: Terms) -> View:
    """Leave an order also for what nodes that were not heard may run and this one never heard of.

    An order can name a specialization or a node, so it is left for those only.
    """
    from meshnode.client.commands.standing import park_for  # noqa: PLC0415 - as above

    wanted = aim.selection
    unheard = not words.is_full(aim.coverage)
    if not unheard or not wanted or wanted.labels or not (wanted.specialization or wanted.node):
        return view
    node_id = mesh.node_id_of(wanted.node) if wanted.node else ""
    order = park_for(mesh, wanted.specialization, node_id, terms)
    meant = [f"spec {wanted.specialization}"] if wanted.specialization else []
    meant += [f"on {wanted.node}"] if wanted.node else []
    what = f"sessions that were not heard of ({' '.join(meant)}, started by now)"
    note = f"order {words.short(order['order_id'])} waits for {what}"
    view.value["standing"] = order
    return View(
        value=view.value,
        human=view.human,
        records=view.records,
        ids=view.ids,
        notes=[*view.notes, note],
        exit_code=view.exit_code,
    )


def _dry_run(mesh: "MeshClient", aim: Aim) -> View:
    sessions = sessions_of(mesh, aim)
    rows = [
        (words.short(one["session_id"]), one["agent_id"], one["node_name"], one["state"])
        for one in sessions
    ]
    value: dict[str, Any] = {"sessions": sessions}
    if aim.coverage:
        value["coverage"] = aim.coverage
    return View(
        value=value,
        human=Table(
            ("SESSION", "AGENT", "NODE", "STATE"),
            rows,
            empty=aim.nothing,
            flexible=("NODE", "AGENT"),
        ),
        records="sessions",
        ids=[one["session_id"] for one in sessions],
        notes=words.coverage_notes(aim.coverage) if aim.coverage else (),
    )
