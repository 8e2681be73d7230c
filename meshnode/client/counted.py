"""Which session is meant where its spending is asked about, as the ledgers of the mesh name it.

Invariant: one that the ledgers have under just that name is never taken for another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.client.targets import Target, check_lengths

if TYPE_CHECKING:
    from meshnode.client.asking import Asking


def counted_session(mesh: Asking, word: str, node: str = "") -> str:
    """Return the whole id of a session that was named as `show` takes it, perhaps on one node.

    Raises NotFoundError where nobody knows it, and ConflictError listing the candidates.
    """
    return (
        word if is_counted(mesh, word) else str(mesh.resolve(Target(word, node=node))["session_id"])
    )


def is_counted(mesh: Asking, session: str) -> bool:
    """Whether a ledger of the mesh has a session of exactly this name."""
    check_lengths({"name of a session": session})
    answer = mesh.cost(("session",), of=("", session))
    asked = all(group["key"]["session"] == session for group in answer["groups"])
    return bool(answer["records"]) and asked  # an older node sums all sessions
