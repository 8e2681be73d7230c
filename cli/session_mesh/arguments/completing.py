"""What a shell completes of the mesh: agents, nodes and specializations that are known now.

Invariant: whoever presses Tab waits PATIENCE_S at most for a node, and sees no word of an error.
What a shell could take for more than a word is not offered: anybody chooses names.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from session_mesh.call import Reader

    Ask = Callable[[Reader], Iterable[str]]
    Complete = Callable[[typer.Context, str], list[str]]

PATIENCE_S = 0.25
SESSIONS_MAX = 200  # looked at, the latest
WORD = re.compile(
    r"[A-Za-z0-9_@%+.,/][A-Za-z0-9_@%+=.,/-]*", re.ASCII
)  # a colon parts words in bash


def agents(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete whoever has not ended: agent ids, and session ids once 4 characters are typed.

    Behind a node and a slash, the agents of that node.
    """
    return _starting(incomplete, _asked(ctx, lambda mesh: _names(mesh, incomplete, ended=False)))


def sessions(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete as `agents` does, also who ended lately."""
    return _starting(incomplete, _asked(ctx, lambda mesh: _names(mesh, incomplete, ended=True)))


def recipients(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete as `agents` does, and nothing of a message behind an agent."""
    return [] if ctx.params.get("given") else agents(ctx, incomplete)


def nodes(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete names of members."""
    return _starting(incomplete, _asked(ctx, lambda mesh: _each(mesh.nodes()["nodes"], "name")))


def specializations(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete specializations of sessions."""

    def found(mesh: "Reader") -> Iterable[str]:
        return [spec for one in _listed(mesh) for spec in one["specializations"]]

    return _starting(incomplete, _asked(ctx, found))


def skills(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete specializations of sessions, and those that agents are registered for."""

    def found(mesh: "Reader") -> Iterable[str]:
        return _each(mesh.find("")["agents"], "specialization")

    return sorted({*specializations(ctx, incomplete), *_starting(incomplete, _asked(ctx, found))})


def among(words: Iterable[str]) -> "Complete":
    """Return what completes an option of known words; the verb checks what it is given."""

    def complete(_ctx: typer.Context, incomplete: str) -> list[str]:
        return [word for word in words if word.startswith(incomplete)]

    return complete


def only(field: str, *, ended: bool) -> "Complete":
    """Return what completes ids of one kind: `session_id` or `agent_id`."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        found = _asked(ctx, lambda mesh: _each(_listed(mesh, ended=ended), field))
        return _starting(incomplete, found)

    return complete


def listed(one: "Complete") -> "Complete":
    """Return what completes lists as `a,b` of what is completed one by one."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        before, comma, begun = incomplete.rpartition(",")
        known = set(before.split(","))
        return [f"{before}{comma}{word}" for word in one(ctx, begun) if word not in known]

    return complete


def _names(mesh: "Reader", incomplete: str, *, ended: bool) -> Iterable[str]:
    node, slash, _ = incomplete.rpartition("/")
    found = _listed(mesh, node, ended=ended)
    if slash:
        return [f"{node}/{agent}" for agent in _each(found, "agent_id")]
    ids = _each(found, "session_id") if len(incomplete) >= 4 else ()  # noqa: PLR2004 - said above
    return [*_each(found, "agent_id"), *ids]


def _listed(mesh: "Reader", node: str = "", *, ended: bool = True) -> list[dict[str, Any]]:
    from meshnode.client.targets.targets import Selection  # noqa: PLC0415 - for who completes such words

    found = mesh.list_sessions(Selection(node=node), SESSIONS_MAX)["sessions"]
    return [one for one in found if ended or not one["ended_at"]]


def _each(found: Iterable[dict[str, Any]], field: str) -> list[str]:
    return [str(one[field]) for one in found]


def _starting(incomplete: str, known: Iterable[str]) -> list[str]:
    return sorted({one for one in known if one.startswith(incomplete) and WORD.fullmatch(one)})


def _asked(ctx: typer.Context, ask: "Ask") -> Iterable[str]:
    """Ask the node of the home that is named; nothing from one that does not answer."""
    from meshnode.client.errors import MeshError  # noqa: PLC0415 - for who completes such words
    from session_mesh.call import Call  # noqa: PLC0415 - as above
    from session_mesh.inside import is_inside  # noqa: PLC0415 - as above
    from session_mesh.output.render import Streams  # noqa: PLC0415 - as above

    home = ctx.params.get("home") or ctx.find_root().params.get("home")
    call: Call = Call(Streams.of_process(), home)
    with suppress(MeshError, OSError):
        if is_inside():
            with call.inside(PATIENCE_S) as session:
                return ask(session)  # type: ignore[arg-type] # what it cannot answer is refused
        with call.mesh() as mesh:
            mesh.patience_s = PATIENCE_S
            return ask(mesh)
    return ()
