"""`show`: all that is known about one session, and its rounds."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshnode.client.errors import NoNodeError, NotFoundError, SilentNodeError
from meshnode.client.public import public, with_names_of_the_monitor
from session_mesh.arguments.completing import sessions
from session_mesh.arguments.options import AgentId, Node, SessionId, target_of
from session_mesh.call import Call
from session_mesh.output import words
from session_mesh.output.render import View
from session_mesh.verbs import verb
from session_mesh.views.rounds import Found, described_rounds

if TYPE_CHECKING:
    from meshnode.client.mesh import MeshClient
    from meshnode.client.targets.targets import Target


@verb(
    "session-mesh show builder",
    "session-mesh show berta/builder -o json",
    "session-mesh show agent:main:discord --no-messages",
)
def app(
    call: Call,
    name: Annotated[
        str, typer.Argument(metavar="ID", help="A session or agent id.", autocompletion=sessions)
    ] = "",
    session: SessionId = "",
    agent_id: AgentId = "",
    node: Node = "",
    no_messages: Annotated[
        bool, typer.Option("--no-messages", help="Leave out what was said.")
    ] = False,
) -> View:
    """Show all about one session, round by round.

    ID is a session id, an agent id, node/agent, or the id of a session that only logs know (cost
    --by session lists them); 8 characters of an id will do. Rounds are read at their owner, with a
    key that may read messages.
    """
    target = target_of(name, session, agent_id, node)
    try:
        with call.mesh() as mesh:
            return _shown(mesh, target, messages=not no_messages)
    except (NoNodeError, SilentNodeError) as error:
        view = _from_disk(call, target, messages=not no_messages)
        if view is None:
            raise
        why = error.message.removesuffix(" on this home")
        call.streams.tell(f"warning: {why}: this is what its disk remembers")
        return view


def _shown(mesh: "MeshClient", target: "Target", *, messages: bool) -> View:
    from meshnode.client.records import rounds  # noqa: PLC0415 - --help needs none

    rounds_found = Found()
    try:
        session = mesh.resolve(target)
    except NotFoundError:
        logged = _logged(mesh, target)
        if logged is None:
            raise
        for name, node_id in logged["nodes"].items():
            if node_id is None:
                rounds_found.notes.append(f"rounds: {name} is not known here by one id")
                continue
            rounds_found.add(
                lambda at=node_id: rounds.rounds_of_log(  # type: ignore[misc] # bound for this turn
                    mesh, at, logged["session_id"], messages=messages
                ),
                messages=messages,
            )
        return _logged_view(logged, rounds_found)
    if session["usage"]["total"]:
        rounds_found.add(
            lambda: rounds.rounds_of_session(mesh, session, messages=messages), messages=messages
        )
    return _view(session, described(session), rounds_found)


def _logged(mesh: "MeshClient", target: "Target") -> dict[str, Any] | None:
    from meshnode.client.records.rounds import logged_session  # noqa: PLC0415 - as above

    wanted = target.session_id or target.name
    logged = logged_session(mesh, wanted) if wanted else None
    if logged is not None and target.node:
        at = mesh.node_id_of(target.node)
        logged["nodes"] = {name: one for name, one in logged["nodes"].items() if one == at}
    return logged


def _from_disk(call: Call, target: "Target", *, messages: bool) -> View | None:
    """Answer for sessions that this home has counted itself, without its node."""
    wanted = target.session_id or target.name
    if not wanted or not call.home.database.exists():
        return None
    from meshnode.node.ledger.usage import Usage  # noqa: PLC0415 - large, rarely needed

    def asking(ledger: Usage) -> View | None:
        logged = ledger.session(wanted)
        if logged is None:
            return None
        rounds_found = Found()
        rounds_found.add(
            lambda: ledger.rounds(logged["session_id"], messages=messages), messages=messages
        )
        return _logged_view({**logged, "source": "disk"}, rounds_found)

    return Usage.looked_at(call.home, call.now_s, asking)


def _logged_view(logged: dict[str, Any], found: Found) -> View:
    from meshnode.client.records.logged import timed  # noqa: PLC0415 - --help needs none

    found.notes[:0] = words.coverage_notes(logged["coverage"]) if logged["coverage"] else []
    logged = timed(logged, found.value["rounds"])
    value = {**logged, "nodes": sorted(logged["nodes"])}
    usage = logged["usage"]
    here = logged.get("source") == "disk"
    read_at = "here" if here else f"on {', '.join(value['nodes'])}"
    lines = words.described(
        [
            ("session", logged["session_id"]),
            ("known from", f"logs that were read {read_at}"),
            ("agent", logged["agent_id"]),
            ("owner", logged["owner"]),
            ("project", logged["project"]),
            ("created", logged["created_at"]),
            ("last activity", logged["updated_at"]),
            ("days", ", ".join(logged["days"])),
            ("messages", logged["message_count"]),
            ("models", ", ".join(logged["models"])),
            ("tokens", words.tokens_by_kind(usage)),
            ("cost", words.usd(logged["cost_usd"])),
        ]
    )
    return _view(value, lines, found)


def _view(session: dict[str, Any], lines: tuple[str, ...], found: Found) -> View:
    value = with_names_of_the_monitor(public(session)) | found.value
    return View(
        value=value,
        human=(*lines, *described_rounds(found.value)),
        ids=[session["session_id"]],
        notes=found.notes,
        exit_code=found.exit_code,
    )


def _order(told: str) -> str:
    """Say what a standing kill or a budget did, without the id of the one or the other."""
    return told.partition(" ")[2].replace(" ", ": ", 1)


def described(session: dict[str, Any]) -> tuple[str, ...]:
    """Lay out what is known about a session."""
    usage = session["usage"]
    return words.described(
        [
            ("session", session["session_id"]),
            ("agent", session["agent_id"]),
            ("title", session["title"]),
            ("node", f"{session['node_name']} ({session['node_id']})"),
            ("state", session["state"]),
            ("orders", "; ".join(map(_order, session["orders"]))),
            ("waiting for", session["waiting_for"]),
            ("specializations", ", ".join(session["specializations"])),
            ("labels", words.labelled(session["labels"])),
            ("owner", session["owner"]),
            ("project", session["project"]),
            ("directory", session["cwd"]),
            ("process", session["pid"]),
            ("created", session["created_at"]),
            ("last activity", session["last_activity"]),
            ("observed", session["observed_at"]),
            ("ended", session["ended_at"]),
            ("reason", session["end_reason"]),
            ("exit code", session["exit_code"]),
            ("signal", session["signal"]),
            ("ended by", session["ended_by"]),
            ("messages", session["message_count"]),
            ("tool calls", session["tool_calls"]),
            ("model", session["model"]),
            ("tokens", words.tokens_by_kind(usage)),
            ("cost", words.usd(session["cost_usd"])),
            ("can", f"steer: {session['can']['steer']}, kill: {session['can']['kill']}"),
        ]
    )
