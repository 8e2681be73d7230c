"""Which node somebody means, by id, by a prefix of one, or by name; and how each is called."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from meshnode.client.words import too_short
from meshnode.core.errors import ConflictError, NotFoundError
from meshnode.core.ids import PREFIX_CHARS_MIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def names_apart(nodes: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return what to call each node, from ids and names: namesakes with the start of their id."""
    names = dict(nodes)
    counts = Counter(names.values())
    return {
        node_id: name if counts[name] == 1 else f"{name}/{node_id[:PREFIX_CHARS_MIN]}"
        for node_id, name in names.items()
    }


def check_forgettable(node: dict[str, Any]) -> None:
    """Raise ConflictError for a node that would only say everything again."""
    if node["self"]:
        raise ConflictError(
            "a node cannot forget itself", "session-mesh leave withdraws it from the mesh"
        )
    if node["state"] == "alive":
        raise ConflictError(
            f"{node['name']} is alive", "run session-mesh leave there, or stop it first"
        )


def working_links(node: dict[str, Any]) -> dict[str, Any]:
    """Return a node without the links that it last spoke of when none of them works now."""
    return node if node["state"] == "alive" else {**node, "links": []}


def node_id_in(nodes: Sequence[dict[str, Any]], name: str) -> str:
    """Return the id of the listed node that is meant; raises NotFoundError or ConflictError."""
    ids = [str(node["node_id"]) for node in nodes]
    if name in ids:
        return name
    named = [str(node["node_id"]) for node in nodes if node["name"] == name]
    if not named and len(name) >= PREFIX_CHARS_MIN:
        named = [node_id for node_id in ids if node_id.startswith(name)]
    if not named:
        hint = too_short(name, ids) or "session-mesh nodes lists them"
        raise NotFoundError(f"no node {name!r}", hint)
    if len(named) > 1:
        raise ConflictError(f"{name!r} fits {len(named)} nodes", f"ids: {', '.join(named)}")
    return named[0]
