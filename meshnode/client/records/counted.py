"""Which session is meant where its spending is asked about, as the ledgers of the mesh name it.

Invariant: one that the ledgers have under just that name is never taken for another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.client.targets.targets import CANDIDATES_SHOWN_MAX, Target, check_lengths
from meshnode.core.errors import ConflictError, NotFoundError, UsageError
from meshnode.core.ids import PREFIX_CHARS_MIN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshnode.client.connection.asking import Asking

TOO_MANY = (
    "name the session by its whole id; one that is counted among (older sessions) is known on its"
    " node alone: session-mesh usage --session-key ID"
)


def counted_session(mesh: Asking, word: str, node: str = "") -> str:
    """Return the whole id of a session that was named as `show` takes it, perhaps on one node.

    Raises NotFoundError where nobody knows it, and ConflictError listing the candidates.
    """
    if _is_counted(mesh, word):
        return word
    try:
        return str(mesh.resolve(Target(word, node=node))["session_id"])
    except NotFoundError:
        if begun_so := _logged_as(mesh, word):
            return begun_so
        raise


def logged_session_id(mesh: Asking, word: str) -> str:
    """Return the id of the one session of the ledgers that is, or begins, like this; or none.

    Raises ConflictError listing several, and UsageError for more sessions than an answer holds.
    """
    return word if _is_counted(mesh, word) else _logged_as(mesh, word)


def begun(word: str, sessions: Iterable[str]) -> str:
    """Return the one session id that begins like this, or none; raises ConflictError."""
    found = sorted({one for one in sessions if one.startswith(word)})
    if len(word) < PREFIX_CHARS_MIN or not found:
        return ""
    if len(found) > 1:
        shown = ", ".join(found[:CANDIDATES_SHOWN_MAX])
        raise ConflictError(f"{word!r} fits {len(found)} sessions: {shown}", "say more of its id")
    return found[0]


def _is_counted(mesh: Asking, session: str) -> bool:
    """Whether a ledger of the mesh has a session of exactly this name."""
    check_lengths({"name of a session": session})
    answer = mesh.cost(("session",), of=("", session))
    asked = all(group["key"]["session"] == session for group in answer["groups"])
    return bool(answer["records"]) and asked  # an older node sums all sessions


def _logged_as(mesh: Asking, word: str) -> str:
    if len(word) < PREFIX_CHARS_MIN:
        return ""
    try:
        groups = mesh.cost(("session",))["groups"]
    except UsageError as error:  # there are more than an answer holds
        raise UsageError(error.message, TOO_MANY) from None
    return begun(word, [str(group["key"]["session"]) for group in groups])
