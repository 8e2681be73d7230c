"""Words that were meant, for words that are not known."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean "…"?)`, or nothing when no known word is near."""
    near = get_close_matches(word, tuple(known), 1)
    return f' (did you mean "{near[0]}"?)' if near else ""
