"""Help in words of people: what is to be typed, and not what typer converts it to.

Invariant: nothing here is done unless help is asked for.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

WORDS = {str: "TEXT", int: "N", float: "N", Path: "FILE"}  # what an option takes that names nothing
GROUPS: dict[str, tuple[str, ...]] = {  # verbs in the order of a first day
    "A mesh and its nodes": (
        *("init", "id", "up", "down", "leave", "invite", "join", "nodes", "status", "doctor"),
        "audit",
    ),
    "Sessions": ("run", "list", "show", "watch", "events", "logs"),
    "Orders to agents": ("steer", "kill", "close", "suspend", "resume", "orders"),
    "Who is good at what": ("register", "unregister", "find"),
    "Keys and people": ("keys", "operator", "root", "receipt"),
    "Tokens and money": (
        *("cost", "usage", "stats-model", "stats-date", "export", "prices", "statusline", "budget"),
    ),
    "Configuration": ("load-config", "config"),
    "Inside a session": ("self", "report", "steer-inbox"),
}


def word(parameters: Iterable[Any]) -> None:
    """Have options and arguments shown as a person would name them."""
    for one in parameters:
        bounds = _bounds(one)
        one._get_number_range_help_str = lambda said=bounds: said  # noqa: SLF001 - no other way
        if one.param_type_name == "argument":
            shown = _argument(one)
            one.get_usage_pieces = lambda _ctx, shown=shown: [shown]
            one.display_type_rich = lambda _ctx=None, ctx=None: ""  # noqa: ARG005 - its name says it
        elif one.metavar is None and not (one.is_flag or one.count):
            annotation = one.type_descriptor.annotation
            inner = (get_args(annotation) or (annotation,))[0]
            one.metavar = WORDS.get(inner)


def _argument(one: Any) -> str:  # noqa: ANN401 - typer's own, of no public type
    """Return an argument as the first line of a help has it: in brackets what may be left out."""
    name = str(one.display_name_raw)
    if "[" in name:  # it says so itself
        return name
    if one.nargs != 1 and not name.endswith("..."):
        name += "..."
    return name if one.required else f"[{name}]"


def _bounds(one: Any) -> str | None:  # noqa: ANN401 - as above
    least, most = one.min, one.max
    if least is None or getattr(one, "count", False):
        return None if most is None else f"at most {most}"
    return f"at least {least}" if most is None else f"{least} to {most}"
