"""`show`: all that is known about one session."""

from typing import Annotated, Any

import typer

from meshnode.client.public import public, with_names_of_the_monitor
from session_mesh import words
from session_mesh.call import Call
from session_mesh.options import AgentId, Node, SessionId, target_of
from session_mesh.render import View
from session_mesh.verbs import verb


@verb("session-mesh show builder", "session-mesh show berta/builder -o json")
def app(
    call: Call,
    name: Annotated[str, typer.Argument(metavar="ID", help="A session or agent id.")] = "",
    session: SessionId = "",
    agent_id: AgentId = "",
    node: Node = "",
) -> View:
    """Show all about one session.

    ID is a session id, 8 characters of one, an agent id, or node/agent.
    """
    with call.mesh() as mesh:
        found = mesh.resolve(target_of(name, session, agent_id, node))
    value = with_names_of_the_monitor(public(found))
    return View(value=value, human=described(found), ids=[found["session_id"]])


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
            ("tokens", f"{usage['total']} (input {usage['input']}, output {usage['output']})"),
            ("cost", words.usd(session["cost_usd"])),
            ("can", f"steer: {session['can']['steer']}, kill: {session['can']['kill']}"),
        ]
    )
