"""Words that were meant, for words that are not known; and what several answers say alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.ids import PREFIX_CHARS_MIN

if TYPE_CHECKING:
    from collections.abc import Iterable

WITHOUT_ROLE = "lists sessions and costs, but neither commands nor reads logs"  # a home, its user


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ` (did you mean "…"?)`, or nothing when no known word is near."""
    from difflib import get_close_matches  # noqa: PLC0415 - for who has misspelt something

    near = get_close_matches(word, tuple(known), 1)
    return f' (did you mean "{near[0]}"?)' if near else ""


def too_short(word: str, ids: Iterable[str]) -> str:
    """Return why a start of an id names nothing: it is too short; empty if that is not why."""
    if not 0 < len(word) < PREFIX_CHARS_MIN:
        return ""
    full = next((one for one in ids if one.startswith(word)), "")
    start = full[: PREFIX_CHARS_MIN + 2]
    return full and f"an id is found by {PREFIX_CHARS_MIN} characters of it or more: {start}"
