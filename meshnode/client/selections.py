"""Which sessions somebody wants to see: read from a configuration, kept in the home, asked for.

Invariant: a session is listed once, however many entries fit it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from meshnode.client.documents import Entry, read_bytes, read_document
from meshnode.client.durations import seconds_of
from meshnode.client.home import make_private
from meshnode.client.targets.targets import FILTERS, Selection, one_specialization
from meshnode.core.errors import UsageError
from meshnode.core.ids import SESSION_ID_CHARS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from meshnode.client.home import Home

    Plain = dict[str, Any]
    Ask = Callable[[Selection, int | None], Plain]

ENTRIES_MAX = 64  # each is a question to the node; more: UsageError
KEYS = ("id", "filter", "node", "spec", "owner", "agent_id")

# The most first, as each answer of a node has it: what several entries select is one list.
SORTS: dict[str, Callable[[Plain], float | Decimal]] = {
    "updated": lambda session: seconds_of(session["last_activity"]),
    "created": lambda session: seconds_of(session["created_at"]),
    "cost": lambda session: Decimal(session["cost_usd"] or 0),
    "tokens": lambda session: session["usage"]["total"],
}


class Chosen(msgspec.Struct, frozen=True):
    """One entry: a session or agent by its id, or all that fit a selection."""

    selection: Selection
    id: str = ""


def chosen_in(root: Mapping[str, Entry]) -> tuple[Chosen, ...] | None:
    """Read `sessions` and `spec`; None if there is neither. Raises UsageError with the line.

    `spec` alone selects what was started for it; beside `sessions` it narrows each entry that
    names no other.
    """
    spec = _spec(root["spec"]) if "spec" in root else ""
    sessions = root.get("sessions")
    if sessions is None or isinstance(sessions.value, dict):
        return (Chosen(Selection(specialization=spec)),) if spec else None
    items = sessions.items("sessions")
    if len(items) > ENTRIES_MAX:
        sessions.fail(f"more than {ENTRIES_MAX} entries")
    return tuple(_chosen(item, spec) for item in items)


def _chosen(item: Entry, spec: str) -> Chosen:
    item.check_keys(KEYS)
    fields = {name: one for name, one in item.map("sessions").items() if one.value is not None}
    if not fields:
        item.fail("an entry that says nothing", "id: 123, or filter: alive")
    texts = {name: one.text(name) for name, one in fields.items() if name != "filter"}
    if "spec" in fields:
        _spec(fields["spec"])
    selection = Selection(
        filter=fields["filter"].choice("filter", FILTERS) if "filter" in fields else "",
        node=texts.get("node", ""),
        specialization=texts.get("spec", spec if "id" not in texts else ""),
        owner=texts.get("owner", ""),
        agent_id=texts.get("agent_id", ""),
    )
    return Chosen(selection, texts.get("id", ""))


def _spec(entry: Entry) -> str:
    name = entry.text("spec")
    try:
        return one_specialization(name)
    except UsageError as error:
        entry.fail(error.message, error.hint)


def is_of_list(key: str, entry: Entry) -> bool:
    """Whether a key of a configuration is for `list`, and not for the node."""
    return key == "spec" or (key == "sessions" and not isinstance(entry.value, dict))


def keep(home: Home, text: bytes) -> None:
    """Keep the document that `list` selects by from now on; raises a MeshError."""
    _write(home.selection, text)


def install(home: Home, text: bytes) -> None:
    """Make a document the configuration of this home's node, and keep the one before beside it.

    Raises a MeshError.
    """
    if home.config.exists():
        _write(home.config.with_name(f"{home.config.name}.old"), read_bytes(home.config))
    _write(home.config, text)


def kept(home: Home) -> tuple[Chosen, ...]:
    """Return what `list` selects by, nothing if nothing was kept; raises UsageError."""
    if not home.selection.exists():
        return ()
    return chosen_in(read_document(home.selection).map("the selection")) or ()


def list_chosen(chosen: Sequence[Chosen], ask: Ask, sort: str, limit: int | None) -> Plain:
    """List what any entry selects: up to `limit` `sessions`, sorted, and `coverage`."""
    found: dict[str, Plain] = {}
    listed: Plain = {}
    for one in chosen:
        for selection in _questions(one, sort):
            listed = ask(selection, limit)
            for session in listed["sessions"]:
                if one.id in {"", session["session_id"], session["agent_id"]}:
                    found.setdefault(session["session_id"], session)
    amount = SORTS[sort]
    ended_last = sort == "updated"

    def order(session: Plain) -> tuple[bool, float | Decimal, str]:
        ended = ended_last and bool(session["ended_at"])
        return ended, -amount(session), session["session_id"]

    first = sorted(found.values(), key=order)
    return listed | {"sessions": first[:limit]}


def _questions(one: Chosen, sort: str) -> list[Selection]:
    selection = replace(one.selection, sort=sort)
    if not one.id:
        return [selection]
    everywhere = replace(selection, filter=selection.filter or "all")
    by_agent = replace(everywhere, agent_id=one.id)
    if len(one.id) != SESSION_ID_CHARS:
        return [by_agent]
    return [replace(everywhere, session_id=one.id), by_agent]


def _write(path: Path, text: bytes) -> None:
    from meshnode.client.keys.keyfiles import PRIVATE_MODE, write_whole  # noqa: PLC0415 - `list` reads

    make_private(path.parent)
    write_whole(path, text, PRIVATE_MODE)
