"""Reading what other programs wrote, as they write it: counts as texts, ids as numbers, odd JSON.

Invariant: a value is taken for what it plainly says, or a ValueError tells that it says nothing
that can be true; nothing is guessed.
"""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from meshnode.core.ledger.ledger import SLOT_MAX, SLOT_S, TEXT_CHARS_MAX, cut

if TYPE_CHECKING:
    from pathlib import Path

_ESCAPED = re.compile(rb"\\x([89a-f][0-9a-f])")  # what `file_text` makes of bytes that are no text
COUNT_MAX = 1 << 40  # more tokens in one request: set aside
DIGITS_MAX = 24  # of a count that is written as text, leading zeros and a sign included
ID_CHARS_MAX = 128  # longer ids of requests are hashed
BEGIN, END = datetime.fromtimestamp(0, UTC), datetime.fromtimestamp(SLOT_MAX * SLOT_S, UTC)


class ContradictionError(ValueError):
    """The numbers of a call cannot all be true."""


def any_json(text: bytes) -> Any:  # noqa: ANN401 - any JSON
    """Read JSON with raw control characters and broken characters, as gateways write them."""
    return json.loads(text.decode("utf-8", "replace"), strict=False)


def count_of(value: object) -> int | None:
    """Read a number of tokens, None where there is none; raises ContradictionError."""
    if type(value) is int and 0 <= value <= COUNT_MAX:  # nearly always
        return value
    if value is None or value in ("", "-", "null"):
        return None
    try:
        count = int(value) if isinstance(value, (int, float)) else int(_digits(str(value)))
    except (ValueError, OverflowError) as error:
        raise ContradictionError("a count is no number") from error
    if isinstance(value, bool) or not 0 <= count <= COUNT_MAX:
        raise ContradictionError("a count is out of range")
    return count


def _digits(text: str) -> str:
    if len(text) > DIGITS_MAX:
        raise ContradictionError("a count is too long")
    return text


def text_of(value: object) -> str:
    """Read a name, cut to what a row holds; "" for what is none."""
    if value is None:
        return ""
    if type(value) is str and len(value) <= TEXT_CHARS_MAX:  # nearly always, and the same ones
        return _known_text(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or value == "-":
        return ""
    return cut(value.strip())


@lru_cache(4096)
def _known_text(value: str) -> str:
    return "" if value == "-" else cut(value.strip())


def file_text(path: str | Path) -> str:
    """Write the name of a file as text that anybody can keep: names are bytes, of any kind."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def file_named(text: str) -> str:
    """Return the name that `file_text` writes so: the text itself if there is such a file."""
    if os.path.exists(text):  # noqa: PTH110 - a name may be of any bytes
        return text
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), text.encode()))


def is_there(file: str) -> bool:
    """Tell whether a file exists that `file_text` writes so, whatever its name is made of."""
    return os.path.exists(file_named(file))  # noqa: PTH110 - as above


def key_of(source: str, ident: object) -> str:
    """Make the key of a response from its provider's id for it, "" if that is no id."""
    if not isinstance(ident, str) or ident in ("", "-"):
        return ""
    if len(ident) <= ID_CHARS_MAX and ident.isascii():
        return f"{source}:{ident}"
    raw = ident.encode("utf-8", "replace")
    return f"{source}:{sha256(raw).hexdigest() if len(ident) > ID_CHARS_MAX else raw.decode()}"


def moment_of(text: str) -> datetime:
    """Read an RFC 3339 time, UTC if it names no zone; raises ContradictionError: it has no slot."""
    try:
        at = datetime.fromisoformat(f"{text[:-1]}Z" if text.endswith("z") else text)
    except ValueError as error:
        raise ContradictionError("no time") from error
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    if not BEGIN <= at < END:
        raise ContradictionError("the time is out of range")
    return at


def at_s_of(text: str) -> float:
    """Do the same in seconds since 1970."""
    return moment_of(text).timestamp()
