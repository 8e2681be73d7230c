"""Which node somebody means, by id, by a prefix of one, or by name; and how each is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshnode.client.words import too_short
from meshnode.core.errors import ConflictError, NotFoundError
from meshnode.core.ids import fits_several, names_apart, nodes_meant, pasted

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "check_forgettable",
    "is_awaited",
    "names_apart",
    "node_id_in",
    "pasted",
    "working_links",
]


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


def is_awaited(node: dict[str, Any]) -> bool:
    """Whether nothing of a node has come yet: it was named in the answer to this home's join."""
    return not node["epoch"]


def working_links(node: dict[str, Any]) -> dict[str, Any]:
    """Return a node without the links that it last spoke of when none of them works now."""
    return node if node["state"] == "alive" else {**node, "links": []}


def node_id_in(nodes: Sequence[dict[str, Any]], name: str) -> str:
    """Return the id of the listed node that is meant; raises NotFoundError or ConflictError."""
    names = {str(node["node_id"]): str(node["name"]) for node in nodes}
    meant = nodes_meant(name, names)
    if not meant:
        hint = too_short(name, names) or "session-mesh nodes lists them"
        raise NotFoundError(f"no node {name!r}", hint)
    if len(meant) > 1:
        raise fits_several(name, meant, names)
    return meant[0]
