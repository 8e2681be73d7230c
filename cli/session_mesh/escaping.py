"""The one way by which words of others reach a terminal.

Invariant: what `escape` returns cannot move the cursor, change colours, reverse the reading order
or hide: every character that does not print itself is spelled out as JSON would spell it.
"""

from unicodedata import category, east_asian_width


def escape(text: str, keep: str = "") -> str:
    """Spell out control characters, ESC, bidi overrides and invisible ones, except those kept."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in keep or category(one) == "Zs" else _spelled(one)
        for one in text
    )


def _spelled(character: str) -> str:
    raw = character.encode("utf-16-be", "surrogatepass")
    units = (int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2))
    return "".join(f"\\u{unit:04x}" for unit in units)


def width_of(text: str) -> int:
    """Return how many columns an escaped text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(_columns(one) for one in text)


def cut(text: str, width: int) -> str:
    """Shorten an escaped text to so many columns, an ellipsis at its end."""
    if width_of(text) <= width:
        return text
    kept, used = [], 1
    for one in text:
        used += _columns(one)
        if used > width:
            break
        kept.append(one)
    return "".join(kept) + "…" if width > 0 else ""


def _columns(character: str) -> int:
    if category(character) in {"Mn", "Me"}:
        return 0
    return 2 if east_asian_width(character) in {"W", "F"} else 1
