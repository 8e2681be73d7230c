"""Where a key comes from that is refused: from the environment, which is easily forgotten.

Invariant: whoever is refused because of SESSION_API_KEY is told of it, and no hint leads back to
the same key.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from meshnode.core.control.grants import ANOTHER_KEY
from meshnode.core.errors import NotAuthenticatedError, NotPermittedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KEY_VARIABLE = "SESSION_API_KEY"
FROM_THERE = f"that key is in {KEY_VARIABLE}: put another one there, or unset {KEY_VARIABLE}"
WITHOUT = f"; to make one without it: env -u {KEY_VARIABLE} session-mesh keys new"


@contextmanager
def blaming(environment: Mapping[str, str]) -> Iterator[None]:
    """Let the hint of a refusal say so if what was refused is the key of the environment."""
    try:
        yield
    except (NotAuthenticatedError, NotPermittedError) as error:
        if environment.get(KEY_VARIABLE, "").strip() and KEY_VARIABLE not in error.hint:
            is_circle = error.hint == ANOTHER_KEY  # it would be made with the same key
            said = (FROM_THERE + WITHOUT,) if is_circle else (error.hint, FROM_THERE)
            error.hint = "; ".join(filter(None, said))
        raise
