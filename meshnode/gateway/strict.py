"""What a caller says, read strictly: JSON without traps, parameters without surprises.

Invariant: whatever is off is a 400 that names the field, never a guess. What JSON parsers disagree
on is refused: keys twice, NaN, lone surrogates, numbers that are no 64-bit integers; and so is
what costs more than it says, such as deep nesting.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from meshnode.core.control.grants import KEY_PREFIX
from meshnode.core.errors import UsageError
from meshnode.gateway.problems import Problem, off

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from starlette.types import Scope

DEPTH_MAX = 16
NUMBER_CHARS_MAX = 20
PARAMETERS_MAX = 64
TEXT_CHARS_MAX = 512  # unless a field says otherwise
PLACE_CHARS_MAX = 24 << 10  # names of eight groupings, and what encodes them
ITEMS_MAX = 64
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")
_JSON_HINT = 'a JSON object, such as {"agent_id": "123"}'


def not_from_before(name: str) -> Problem:
    """Return what is said of a `name` that no earlier answer of this list has ended with."""
    return off(name, "it is not from an earlier answer", f"give its `{name}` as it is")


class Written(str):
    """A number with a fraction or an exponent, as it was written."""

    __slots__ = ()


def parse_object(raw: bytes) -> Fields:
    """Read a body; raises Problem 400."""
    try:
        text = raw.decode()
        _check_depth(raw)
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_fraction,
        )
        text.encode()
        json.dumps(value, ensure_ascii=False).encode()  # an escape may stand for half a character
    except UnicodeError:
        raise Problem(400, "usage", "the body is not Unicode", _JSON_HINT) from None
    except (ValueError, RecursionError) as error:
        trap = error if isinstance(error, _TrapError) else _TrapError("the body is not JSON")
        more = {"field": trap.field} if trap.field else {}
        raise Problem(400, "usage", str(trap)[:200], _JSON_HINT, more) from None
    if not isinstance(value, dict):
        raise Problem(400, "usage", "the body is no JSON object", _JSON_HINT)
    return Fields(value)


def parse_query(query: bytes, known: Collection[str], repeated: Collection[str] = ()) -> Fields:
    """Read parameters; those in `repeated` are lists. Raises Problem 400."""
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=PARAMETERS_MAX,
        )
    except ValueError:
        raise Problem(400, "usage", "the parameters are not UTF-8, or too many") from None
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name not in known:
            hint = f"one of: {', '.join(known)}" if known else "this route takes none"
            raise off(name[:60], "no such parameter", hint)
        if name in repeated:
            values.setdefault(name, []).append(value)
        elif values.setdefault(name, value) != value:
            raise off(name, "given twice")
    return Fields(values)


def check_address(scope: Scope) -> None:
    """Raise Problem 400 for an address that has a session key in it, wherever: it is repeated."""
    query: bytes = scope["query_string"]
    if KEY_PREFIX in scope["path"] or KEY_PREFIX in unquote(query.decode("latin-1")):
        raise Problem(
            400,
            "usage",
            "a session key does not belong into an address: whoever logs it can use it",
            "revoke that key, and send another as: Authorization: Bearer",
        )


def check_path(name: str, value: str) -> None:
    """Raise Problem 400 for a part of a path that is longer than any name."""
    Fields({name: value}).text(name, needed=True)


@contextmanager
def about(field: str) -> Iterator[None]:
    """Name the field that a UsageError is about, as Problem 400."""
    try:
        yield
    except UsageError as error:
        raise off(field, error.message, error.hint) from None


class Fields:
    """The fields of a request; each is read once, by its kind."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        """Whether a field was given."""
        return name in self._values

    def check_known(self, known: Collection[str]) -> None:
        """Raise Problem 400 for a field that means nothing here."""
        for name in self._values:
            if name not in known:
                raise off(name[:60], "no such field", f"one of: {', '.join(known)}")

    def text(self, name: str, *, needed: bool = False, chars_max: int = TEXT_CHARS_MAX) -> str:
        """Return a text; empty if it is not there."""
        value = self._values.get(name)
        if value is None:
            if needed:
                raise off(name, "it is needed")
            return ""
        if value == "":
            raise off(name, "it is empty", "" if needed else "leave it out")
        if type(value) is not str:
            raise off(name, "it should be a text, in quotes")
        if len(value) > chars_max:
            raise off(name, f"it has at most {chars_max} characters")
        return value

    def choice(self, name: str, choices: Collection[str], otherwise: str) -> str:
        """Return one of a few words."""
        value = self.text(name) or otherwise
        if value not in choices:
            raise off(name, f"it cannot be {value[:40]!r}", f"one of: {', '.join(choices)}")
        return value

    def flag(self, name: str) -> bool:
        """Return true or false, as JSON or a parameter says it."""
        value = self._values.get(name, False)
        if isinstance(value, bool):
            return value
        if value not in {"true", "false", "1", "0"}:
            raise off(name, "it should be true or false", f"such as {name}=true; or leave it out")
        return value in {"true", "1"}

    def integer(self, name: str, least: int, most: int, otherwise: int) -> int:
        """Return a whole number; JSON's 1.0 and "1" are none."""
        value = self._values.get(name)
        if value is None:
            return otherwise
        if type(value) is not int or not least <= value <= most:
            hint = f"such as {otherwise}, without quotes or a fraction; {otherwise} if left out"
            raise off(name, f"it should be a whole number from {least} to {most}", hint)
        return value

    def count(self, name: str, most: int) -> int:
        """Return a whole number of a parameter, from 1 on; 0 if it is not there."""
        value = self.text(name)
        if not value:
            return 0
        digits = value.isascii() and value.isdigit() and len(value) <= NUMBER_CHARS_MAX
        if not digits or not 1 <= int(value) <= most:
            hint = f"digits alone, such as {name}={min(most, 100)}; or leave it out"
            raise off(name, f"it should be a whole number from 1 to {most}", hint)
        return int(value)

    def place(self, name: str, form: re.Pattern[str]) -> str:
        """Return where a page begins, as the page before ended; empty for the first."""
        value = self.text(name, chars_max=PLACE_CHARS_MAX)
        if value and not form.fullmatch(value):
            raise not_from_before(name)
        return value

    def texts(self, name: str) -> tuple[str, ...] | None:
        """Return a list of texts; None if it is not there."""
        value = self._values.get(name)
        if value is None:
            return None
        fits = isinstance(value, list) and 0 < len(value) <= ITEMS_MAX
        if not fits or not all(
            type(one) is str and 0 < len(one) <= TEXT_CHARS_MAX for one in value
        ):
            raise off(name, f"it should be a list of 1 to {ITEMS_MAX} texts")
        return tuple(value)

    def attributes(self, name: str) -> dict[str, str]:
        """Return a map of texts; numbers and truths are taken as they are written."""
        value = self._values.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise off(name, "it should be a map of texts")
        return {key: _scalar(f"{name}.{key[:60]}", one) for key, one in value.items()}

    def pairs(self, name: str) -> dict[str, str]:
        """Return the K=V words of a repeated parameter."""
        found: dict[str, str] = {}
        for word in self.texts(name) or ():
            key, equals, value = word.partition("=")
            if not key or not equals or found.setdefault(key, value) != value:
                raise off(name, f"{word[:60]!r} is not K=V, or K stands twice")
        return found


def _scalar(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int):
        return str(value)
    raise off(name, "it should be a text or a number")


class _TrapError(ValueError):
    """JSON that others may read in another way; `field` is what it is about, if it has a name."""

    def __init__(self, said: str, field: str = "") -> None:
        super().__init__(said)
        self.field = field


def _check_depth(raw: bytes) -> None:
    depth = 0
    for bracket in _BRACKETS.finditer(_STRINGS.sub(b"", raw)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > DEPTH_MAX:
            raise _TrapError(f"the body is nested deeper than {DEPTH_MAX}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        ((twice, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise _TrapError(f"{twice[:60]}: it stands twice in the body", twice[:60])
    return value


def _no_constant(text: str) -> None:
    raise _TrapError(f"{text} is no JSON")


def _integer(text: str) -> int:
    if len(text) > NUMBER_CHARS_MAX:
        raise _TrapError("a number in the body is too large")
    return int(text)


def _fraction(text: str) -> Written:
    if len(text) > NUMBER_CHARS_MAX:
        raise _TrapError("a number in the body has too many digits")
    return Written(text)
