"""The one way by which words of others reach a terminal.

Invariant: what `escape` returns cannot move the cursor, change colours, reverse the reading order
or hide: every character that does not print itself is spelled out as JSON would spell it.
"""

import codecs
from itertools import chain
from unicodedata import category, east_asian_width

# Python calls these printable, yet they show nothing: two names that look alike would differ.
UNSEEN = frozenset(
    map(
        chr,
        chain(
            (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
            range(0x180B, 0x1810),
            range(0xFE00, 0xFE0F),  # not the last: emoji are written with it
            range(0xE0100, 0xE01F0),
        ),
    )
)
FORMULA = frozenset("=+-@\t\r")  # what begins with one is computed by a spreadsheet
SPELLED_OUT = "session-mesh"  # the name by which streams know `_spell_out`
EMOJI = "\ufe0f"  # makes the character before it a picture of two columns
MARKS_MAX = 4  # on one character, more than any script needs; a tower of them covers other lines


def escape(text: str, keep: str = "") -> str:
    """Spell out control characters, ESC, bidi overrides and invisible ones, except those kept."""
    if text.isascii() and text.isprintable():
        return text
    shown: list[str] = []
    marks = 0
    for one in text:
        marks = marks + 1 if category(one) in {"Mn", "Me"} else 0
        is_plain = (one.isprintable() and one not in UNSEEN) or one in keep
        is_plain = is_plain or category(one) == "Zs"
        shown.append(one if is_plain and marks <= MARKS_MAX else _spelled(one))
    return "".join(shown)


def inert(cell: str) -> str:
    """Return a word as a spreadsheet shows it, and does not compute it: after an apostrophe."""
    return f"'{cell}" if cell[:1] in FORMULA else cell


def encodable(text: str, spell: str = "") -> str:
    """Spell out lone surrogates, which no stream takes, and the characters named."""
    if text.isascii() and not spell:
        return text
    return "".join(
        _spelled(one) if "\ud800" <= one <= "\udfff" or one in spell else one for one in text
    )


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    """Go on with words of what a stream's encoding does not have, which JSON reads back."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_spelled, error.object[error.start : error.end])), error.end


codecs.register_error(SPELLED_OUT, _spell_out)


def _spelled(character: str) -> str:
    raw = character.encode("utf-16-be", "surrogatepass")
    units = (int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2))
    return "".join(f"\\u{unit:04x}" for unit in units)


def width_of(text: str) -> int:
    """Return how many columns an escaped text takes on a terminal."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text, chain(("",), text)))


def cut(text: str, width: int) -> str:
    """Shorten an escaped text to so many columns, an ellipsis at its end."""
    if width_of(text) <= width:
        return text
    kept, used = [], 1
    for one, before in zip(text, chain(("",), text), strict=False):
        used += _columns(one, before)
        if used > width:
            break
        kept.append(one)
    return "".join(kept) + "…" if width > 0 else ""


def cut_inside(text: str, width: int) -> str:
    """Shorten an escaped text to so many columns, an ellipsis in its middle: both ends tell it."""
    if width_of(text) <= width:
        return text
    tail, room = "", (width - 1) // 2
    for one in reversed(text):
        if width_of(one + tail) > room:
            break
        tail = one + tail
    tail = tail.lstrip(EMOJI)  # whose character there was no room for
    return cut(text, width - width_of(tail)) + tail


def _columns(character: str, before: str) -> int:
    if character == EMOJI and before and category(before) not in {"Mn", "Me"}:
        return 2 - _columns(before, "")
    if category(character) in {"Mn", "Me"}:
        return 0
    return 2 if east_asian_width(character) in {"W", "F"} else 1
