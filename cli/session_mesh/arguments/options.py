"""Options that several verbs share, and what their words mean."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from meshnode.client.errors import UsageError
from meshnode.client.targets.targets import EVENT_KINDS, Selection, Target, one_specialization
from session_mesh.arguments.completing import among, listed, nodes, only, specializations
from session_mesh.output.render import Style

KEY_CHARS_MAX = 256  # of a label; what its value may be, the node says
Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="K=V", help="A label; repeat for more.")
]
Specializations = Annotated[
    list[str] | None,
    typer.Option(
        "--spec",
        metavar="S",
        help="A specialization; several: a,b.",
        autocompletion=listed(specializations),
    ),
]
Node = Annotated[
    str, typer.Option("--node", metavar="N", help="Name or id of a node.", autocompletion=nodes)
]
SessionId = Annotated[
    str,
    typer.Option(
        "--session",
        metavar="ID",
        help="A session id.",
        autocompletion=only("session_id", ended=True),
    ),
]
AgentId = Annotated[
    str,
    typer.Option(
        "--agent-id",
        metavar="A",
        help="An agent id, exactly.",
        autocompletion=only("agent_id", ended=True),
    ),
]
Grace = Annotated[str, typer.Option("--grace", metavar="D", help="Time to end by itself.")]
Timeout = Annotated[
    str, typer.Option("--timeout", metavar="D", help="How long to try to reach the owner node.")
]
CommandId = Annotated[
    str, typer.Option("--command-id", metavar="ID", help="Repeat a command; it acts once only.")
]
RootFile = Annotated[
    Path | None,
    typer.Option("--root", metavar="FILE", help="The root key; else root.key in the home."),
]
Wait = Annotated[
    Literal["accepted", "delivered", "applied"],
    typer.Option("--wait", help="Until the owner has journalled it, or for all that it can tell."),
]
EventKinds = Annotated[
    list[str] | None,
    typer.Option(
        "--kind",
        metavar="|".join(EVENT_KINDS),
        help="All unless told; several: a,b.",
        autocompletion=listed(among(EVENT_KINDS)),
    ),
]


def several(words: Sequence[str] | None) -> tuple[str, ...]:
    """Return each word of an option once that is repeated, written `a,b`, or both.

    Only for options no value of which can hold a comma. An empty word stays, to be refused.
    """
    return tuple(dict.fromkeys(one.strip() for word in words or () for one in word.split(",")))


def stream_only(style: Style) -> None:
    """Raise UsageError for a format that has an end."""
    if style.format not in {"table", "json"}:
        raise UsageError(f"what never ends is no {style.format}", "use -o json: one event a line")


def pairs(words: Sequence[str] | None, flag: str = "--label") -> dict[str, str]:
    """Read K=V words; raises UsageError."""
    found: dict[str, str] = {}
    for word in words or ():
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise UsageError(f"{flag} {word[:60]!r} is not K=V")
        if len(key) > KEY_CHARS_MAX:
            raise UsageError(f"{flag} {key[:60]!r}… is longer than {KEY_CHARS_MAX} characters")
        if found.setdefault(key, value) != value:
            raise UsageError(f"{flag} gives {key[:60]!r} twice")
    return found


def target_of(name: str, session: str, agent_id: str, node: str) -> Target:
    """Take the one way in which the session was named; raises UsageError for none or several."""
    given = [word for word in (name, session, agent_id) if word]
    if len(given) != 1:
        raise UsageError(
            "which session?" if not given else "the session is named twice",
            "give one of: ID, --session ID, --agent-id A",
        )
    return Target(name=name, session_id=session, agent_id=agent_id, node=node)


def narrowed(spec: str, node: str, labels: Sequence[str] | None) -> Selection:
    """Select for orders to many: also who cannot be reached, so that it is told."""
    spec = one_specialization(spec)
    return Selection(specialization=spec, node=node, labels=pairs(labels))
