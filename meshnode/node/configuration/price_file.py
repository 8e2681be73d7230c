"""The YAML file in which a user writes prices, and what its mistakes earn.

Invariant: a mistake never stops a node or a count. An entry with one is left out whole, since half
a price is a wrong one, and a sentence tells file, line, key and the nearest name; a file that is no
YAML is left out as a whole. What no entry names costs what the next list says.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from stat import S_ISREG
from typing import TYPE_CHECKING, TypeVar

from meshnode.core.errors import UsageError
from meshnode.core.ledger.prices import PUSD_PER_USD, Rates
from meshnode.core.ledger.tiers import CONTEXT_STEPS_TOKENS, PLACED, STANDARD, tier_of
from meshnode.ingest.own_prices import FOREVER_S, Alias, OwnPrices, Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping
    from pathlib import Path

    from meshnode.client.documents import Entry

FILE_BYTES_MAX = 64 << 10  # larger: left out as a whole; reading this much takes half a second
ENTRIES_MAX = 500  # of rules, and of aliases; those beyond are left out
FAULTS_MAX = 20  # sentences told; beyond, one says how many more
VERSION_CHARS = 8
KEYS = ("prices", "aliases")
RATE_FIELDS = {  # key of the file: field of Rates, and what it is when the key is left out
    "input": ("input_pusd", ""),
    "cache_read": ("cache_read_pusd", "input"),
    "cache_write_5m": ("cache_write_5m_pusd", "input"),
    "cache_write_1h": ("cache_write_1h_pusd", "cache_write_5m"),
    "output": ("output_pusd", ""),
    "reasoning": ("reasoning_pusd", "output"),
}
FEE_FIELDS = {"request": "request_pusd", "web_search": "web_search_pusd"}
AMOUNTS = (*RATE_FIELDS, *FEE_FIELDS)
RULE_KEYS = (
    *("model", "provider", "effective_from", "effective_until", "long_prompts", "tiers"),
    *AMOUNTS,
)
ALIAS_KEYS = ("model", "provider")
_AMOUNT = re.compile(r"\d{1,6}(?:\.\d{1,12})?", re.ASCII)
_STEPS = ", ".join(map(str, CONTEXT_STEPS_TOKENS))

Amounts = dict[str, Decimal]
Given = TypeVar("Given")
Made = TypeVar("Made")


class PriceFile:
    """A file that may change, or appear, while a node runs; read again when it has."""

    def __init__(self, path: Path, on_fault: Callable[[str], object]) -> None:
        self._path = path
        self._on_fault = on_fault
        self._seen: tuple[int, ...] = ()
        self._own = OwnPrices()

    def read(self) -> OwnPrices:
        """Return the prices as the file has them by now; the same object while it is the same."""
        seen, read = self._look()
        if seen != self._seen:
            self._seen, self._own = seen, read()
            for fault in self._own.faults:
                self._on_fault(fault)
        return self._own

    def _look(self) -> tuple[tuple[int, ...], Callable[[], OwnPrices]]:
        try:
            about = self._path.stat()
        except FileNotFoundError:
            return (), OwnPrices
        except OSError as error:
            why = str(error.strerror)
            return (error.errno or 0,), lambda: self._unreadable(why)
        if not S_ISREG(about.st_mode):  # opening a pipe would wait for a writer
            return (about.st_dev, about.st_ino), lambda: self._unreadable("not a file")
        return (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns), self._read

    def _read(self) -> OwnPrices:
        try:
            with self._path.open("rb") as file:
                return own_prices(file.read(FILE_BYTES_MAX + 1), self._path.name)
        except OSError as error:
            return self._unreadable(str(error.strerror))

    def _unreadable(self, why: str) -> OwnPrices:
        fault = f"cannot read {self._path}: {why}"
        return OwnPrices(self._path.name, "unreadable", faults=(fault,))


def own_prices(raw: bytes, name: str) -> OwnPrices:
    """Read what a file says; never raises."""
    from meshnode.client.documents import Entry, parse_document  # noqa: PLC0415 - for a file

    faults: list[str] = []
    rules: list[Rule] = []
    aliases: list[Alias] = []
    nothing = Entry(None, 1, name)
    sections: dict[str, Entry] = {}
    with _told(faults):
        if len(raw) > FILE_BYTES_MAX:
            raise UsageError(f"{name} is larger than {FILE_BYTES_MAX} bytes")
        root = parse_document(raw, name)
        sections = root.map("the price file")
        root.check_keys(KEYS)
    with _told(faults):
        rules = _each(sections.get("prices", nothing).items("prices"), _rule, faults, name)
    with _told(faults):
        pairs = sections.get("aliases", nothing).map("aliases").items()
        aliases = _each(list(pairs), _alias, faults, name)
    if len(faults) > FAULTS_MAX:
        faults[FAULTS_MAX:] = [f"{name}: and {len(faults) - FAULTS_MAX} more mistakes"]
    version = sha256(raw).hexdigest()[:VERSION_CHARS]
    return OwnPrices(name, version, tuple(rules), tuple(aliases), tuple(faults))


def _each(
    entries: list[Given], make: Callable[[Given], Made], faults: list[str], name: str
) -> list[Made]:
    made: list[Made] = []
    for entry in entries[:ENTRIES_MAX]:
        with _told(faults):
            made.append(make(entry))
    if len(entries) > ENTRIES_MAX:
        more = len(entries) - ENTRIES_MAX
        faults.append(f"{name}: {more} entries beyond {ENTRIES_MAX} are left out")
    return made


@contextmanager
def _told(faults: list[str]) -> Iterator[None]:
    """Turn a mistake into a sentence."""
    try:
        yield
    except UsageError as error:
        faults.append(f"{error.message}; {error.hint}" if error.hint else error.message)


def _alias(pair: tuple[str, Entry]) -> Alias:
    called, entry = pair
    model, provider = entry, ""
    if isinstance(entry.value, dict):
        entry.check_keys(ALIAS_KEYS)
        if "model" not in entry.value:
            entry.fail(f'alias "{called[:40]}" needs "model"')
        model = entry.value["model"]
        provider = _word(entry.value, "provider", "")
    return Alias(_where(entry), called.lower(), model.text("aliases").strip().lower(), provider)


def _rule(entry: Entry) -> Rule:
    entry.check_keys(RULE_KEYS)
    given = entry.map("prices")
    missing = [name for name in ("model", "input", "output") if not _is_given(given, name)]
    if missing:
        hint = 'what is free says so: "0"' if missing[0] != "model" else ""
        entry.fail(f'an entry of "prices" needs "{missing[0]}"', hint)
    since_s = _moment_s(given.get("effective_from"), "effective_from", -FOREVER_S)
    until_s = _moment_s(given.get("effective_until"), "effective_until", FOREVER_S)
    if since_s >= until_s:
        given["effective_until"].fail('"effective_until" should be after "effective_from"')
    return Rule(
        where=_where(entry),
        model=_word(given, "model", "*"),
        provider=_word(given, "provider", "*"),
        since_s=since_s,
        until_s=until_s,
        rates=_tiers(given),
    )


def _tiers(given: Mapping[str, Entry]) -> dict[str, tuple[tuple[int, Rates], ...]]:
    base, longer = _amounts(given), _long_prompts(given.get("long_prompts"))
    found = {STANDARD: _steps(longer, base)}
    tiers = given["tiers"].map("tiers") if "tiers" in given else {}
    for name, entry in tiers.items():
        entry.check_keys((*AMOUNTS, "long_prompts"))
        own = entry.map(f"tiers.{name}")
        own_longer = _long_prompts(own.get("long_prompts"))
        found[_tier(name, entry, found)] = _steps(longer, base, _amounts(own), own_longer)
    return found


def _tier(name: str, entry: Entry, others: Container[str]) -> str:
    """Return a tier's name as responses have it: one that none has would never hold."""
    called, is_longer, _ = name.strip().lower().partition(">")
    service, _, place = called.partition(PLACED)
    meant, said = tier_of(service, 0, place), name[:40]
    above = 'above "tiers"'
    if is_longer:
        where = above if meant == STANDARD else f'inside "{meant[:40]}"'
        hint = f'what longer prompts cost stands in "long_prompts" {where}'
        entry.fail(f'the name of a tier has no length of prompts: "{said}"', hint)
    hint = f"its amounts stand {above}" if meant == STANDARD else ""
    if called != meant:
        problem = f'no response is of tier "{said}": what logs call so is "{meant[:40]}"'
        entry.fail(problem, hint)
    if meant in others:
        entry.fail(f'the tier "{said}" has amounts already', hint)
    return meant


def _steps(
    longer: dict[int, Amounts],
    base: Amounts,
    own: Amounts | None = None,
    own_longer: dict[int, Amounts] | None = None,
) -> tuple[tuple[int, Rates], ...]:
    """Merge, from what says least about a request to what says most."""
    own_longer = own_longer or {}
    steps: list[tuple[int, Rates]] = []
    for over in sorted({0, *longer, *own_longer}):
        amounts = dict(base)
        for step in sorted(longer):
            amounts |= longer[step] if step <= over else {}
        amounts |= own or {}
        for step in sorted(own_longer):
            amounts |= own_longer[step] if step <= over else {}
        steps.append((over, _rates(amounts)))
    return tuple(steps)


def _rates(amounts: Amounts) -> Rates:
    filled = dict(amounts)
    for name, (_, otherwise) in RATE_FIELDS.items():
        if name not in filled:
            filled[name] = filled[otherwise]
    per_token = {
        field: int(filled[name] * PUSD_PER_USD / 1_000_000)
        for name, (field, _) in RATE_FIELDS.items()
    }
    fees = {field: int(filled.get(name, 0) * PUSD_PER_USD) for name, field in FEE_FIELDS.items()}
    return Rates(**per_token, **fees)


def _long_prompts(entry: Entry | None) -> dict[int, Amounts]:
    found: dict[int, Amounts] = {}
    for item in entry.items("long_prompts") if entry is not None else ():
        item.check_keys(("over", *AMOUNTS))
        given = item.map("long_prompts")
        if "over" not in given:
            item.fail('an entry of "long_prompts" needs "over", in tokens')
        over = given["over"].text("over")
        if not over.isdecimal() or over not in _STEPS.split(", "):
            hint = f"lengths are counted in these steps: {_STEPS}"
            given["over"].fail(f'"over" cannot be "{over[:40]}"', hint)
        found[int(over)] = _amounts(given)
    return found


def _amounts(given: Mapping[str, Entry]) -> Amounts:
    return {name: _amount(given[name], name) for name in AMOUNTS if _is_given(given, name)}


def _amount(entry: Entry, name: str) -> Decimal:
    text = entry.text(name)
    unit = "" if name in FEE_FIELDS else " million tokens"
    if not _AMOUNT.fullmatch(text):
        entry.fail(f'"{name}" should be USD per{unit or " one"}, such as "0.25", not "{text[:40]}"')
    amount = Decimal(text)
    if unit and amount * 1_000_000 % 1:
        entry.fail(f'"{name}" has more than six decimals: "{text[:40]}"')
    return amount


def _moment_s(entry: Entry | None, name: str, otherwise: float) -> float:
    if entry is None or entry.value is None:
        return otherwise
    text = entry.text(name)
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        entry.fail(f'"{name}" should be a date such as 2026-11-20, not "{text[:40]}"')


def _word(given: Mapping[str, Entry], name: str, otherwise: str) -> str:
    return given[name].text(name).strip().lower() if _is_given(given, name) else otherwise


def _is_given(given: Mapping[str, Entry], name: str) -> bool:
    return name in given and given[name].value is not None


def _where(entry: Entry) -> str:
    return f"{entry.document}:{entry.line}"
