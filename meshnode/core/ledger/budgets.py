"""Budgets: which of them count, how much of each is spent, and what follows for a session.

Invariants. Which budget counts under a name is a function of the control set and the time, whatever
the order in which entries came. Nothing is done below a limit. Nobody is killed while part of the
mesh is not heard. Each budget warns once a window, and acts once on each session in a window.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from meshnode.core.control.entries import ENTRY_ID_BYTES
from meshnode.core.control.settings import AMOUNT_MAX, Budget, Terms, budget_from_map
from meshnode.core.errors import PeerError, UsageError
from meshnode.core.ledger.ledger import COUNT_MAX
from meshnode.core.ledger.prices import NUSD_PER_USD, decimal_text, rounded_text
from meshnode.core.packing import pack
from meshnode.core.sessions.sessions import WORKING, SessionRecord, State
from meshnode.core.sessions.specializations import check_specialization

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from meshnode.core.control.control import ControlSet
    from meshnode.core.control.entries import Entry

UNPRICED_SHOWN = 20  # models without a price by name, those with most tokens; others are counted
SKEW_S = 120  # one issued further in our future does not count yet
OF_ONE_MAX = 64  # in force, by one issuer; its later ones are `ignored`
IN_FORCE_MAX = 512  # in all, admins' first; the rest is `ignored`
MAY_SET = frozenset({"operator", "admin"})
PERCENT_MAX = 1_000_000  # as shown; more is as much
USD, TOKENS = "nusd", "tokens"
SAID = ("name", "limit", "per", "then", "warn", "owner", "agent_id", "spec", "project")
UNITS = {"tok": 1, "ktok": 10**3, "mtok": 10**6, "gtok": 10**9, "usd": NUSD_PER_USD}
WRITTEN_UNITS = ((9, "Gtok"), (6, "Mtok"), (3, "ktok"), (0, "tok"))  # powers of ten
_LIMIT = re.compile(r"([0-9]{1,19})(?:\.([0-9]{1,9}))? ?([kmg]?tok|usd)", re.ASCII | re.IGNORECASE)
_PERCENT = re.compile(r"([0-9]{1,3})%?", re.ASCII)


class Standing(StrEnum):
    """Where a budget stands in its window."""

    OK = "ok"
    WARNED = "warned"
    EXCEEDED = "exceeded"
    IGNORED = "ignored"  # there are too many


RANK = {Standing.OK: 0, Standing.WARNED: 1, Standing.EXCEEDED: 2}


class News(StrEnum):
    """What is told of a budget."""

    WARNED = "warned"
    EXCEEDED = "exceeded"
    LIFTED = "lifted"


class Window(msgspec.Struct, frozen=True):
    """The hour, day or month, in UTC, that a budget counts in: seconds since 1970, end excluded."""

    start_s: int
    end_s: int


class Allowance(msgspec.Struct, frozen=True):
    """A budget that counts. Its id is that of its entry, so one that is set anew is another."""

    budget_id: bytes
    name: str
    terms: Terms
    issuer: bytes = b""  # empty: the configuration of this node
    issued_s: int = 0
    by_admin: bool = False
    ignored: bool = False


class Who(msgspec.Struct, frozen=True):
    """For whom something was spent; empty is not known. Specializations as fixed at the start."""

    owner: str = ""
    agent: str = ""
    project: str = ""
    specializations: tuple[str, ...] = ()


class Spent(msgspec.Struct, frozen=True):
    """What was spent; `unpriced` are tokens by model, and are in no money.

    Of too many models only those with most tokens are named; the others are counted.
    """

    tokens: int = 0
    nusd: int = 0
    unpriced: Mapping[str, int] = msgspec.field(default_factory=dict)
    unpriced_more: int = 0  # models beside those
    unpriced_more_tokens: int = 0
    unsure: int = 0  # tokens that older sessions used, of which only their names would tell


class Heard(msgspec.Struct, frozen=True):
    """How much of the mesh the totals speak for."""

    heard: int
    known: int

    @property
    def is_full(self) -> bool:
        """Whether nobody is missing."""
        return self.heard >= self.known


class Verdict(msgspec.Struct, frozen=True):
    """What is to be thought of a budget now; `action` is suspend, kill or empty."""

    standing: Standing
    amount: int  # in the unit of the terms
    percent: int
    action: str
    reason: str


def parse_limit(text: str) -> tuple[int, str]:
    """Return amount and unit of `20usd`, `0.5usd`, `5Mtok`, `200ktok`; raises UsageError."""
    match = _LIMIT.fullmatch(text.strip())
    hint = "write 20usd, 0.5usd, 5Mtok, 200ktok or 900tok"
    if match is None:
        raise UsageError(f"not a limit: {text[:40]!r}", hint)
    unit = match[3].lower()
    digits = match[2] or ""
    amount, rest = divmod(int(match[1] + digits) * UNITS[unit], 10 ** len(digits))
    if not amount and not rest:
        nothing = "a budget allows something: set a small one, or suspend who must not go on"
        raise UsageError(f"a limit of {text[:40]!r} allows nothing", nothing)
    if rest:
        least = "0.000000001usd" if unit == "usd" else "1tok"
        raise UsageError(f"limits are whole multiples of {least}, not {text[:40]!r}", hint)
    if amount >= AMOUNT_MAX:
        raise UsageError(f"a limit of {text[:40]!r} is more than can be counted", hint)
    return amount, USD if unit == "usd" else TOKENS


def parse_percent(text: str) -> int:
    """Return 80 of `80%` or `80`; raises UsageError."""
    match = _PERCENT.fullmatch(text.strip())
    if match is None or not 1 <= int(match[1]) <= 100:  # noqa: PLR2004 - percent
        raise UsageError(f"not a share of a budget: {text[:40]!r}", "write 1% to 100%")
    return int(match[1])


def budget_of(said: Mapping[str, str]) -> Budget:
    """Read a budget as people write it, by the names in SAID; raises UsageError."""
    amount, unit = parse_limit(said["limit"])
    check_specialization(said.get("spec", ""), "a budget is of one: set one for each")
    terms = Terms(
        amount,
        unit,
        said["per"],
        said.get("then", "suspend"),
        parse_percent(said.get("warn", "80%")),
        owner=said.get("owner", ""),
        agent=said.get("agent_id", ""),
        specialization=said.get("spec", ""),
        project=said.get("project", ""),
    )
    if not said["name"]:
        raise UsageError("a budget needs a name", "session-mesh budget set team, for one")
    try:
        return budget_from_map(Budget(said["name"], terms).to_map())
    except (PeerError, ValueError) as error:
        raise UsageError(
            f"no budget can be {said['name'][:40]!r}, like that: {error}",
            "session-mesh budget set --help shows what can be said",
        ) from error


def amount_text(amount: int, unit: str) -> str:
    """Write an amount as `parse_limit` reads it, in the largest unit that is exact."""
    places, name = _unit_of(amount, unit)
    return f"{decimal_text(amount, places)}{name}"


def _unit_of(amount: int, unit: str) -> tuple[int, str]:
    if unit == USD:
        return 9, "usd"  # of a nano-USD
    return next(one for one in WRITTEN_UNITS if not amount % 10 ** one[0])


def window_of(per: str, now_s: float) -> Window:
    """Return the hour, day or month that a time falls into."""
    at = datetime.fromtimestamp(now_s, UTC).replace(minute=0, second=0, microsecond=0)
    if per == "hour":
        return _window(at, at + timedelta(hours=1))
    at = at.replace(hour=0)
    if per == "day":
        return _window(at, at + timedelta(days=1))
    at = at.replace(day=1)
    return _window(at, (at + timedelta(days=31)).replace(day=1))


def _window(start: datetime, end: datetime) -> Window:
    return Window(int(start.timestamp()), int(end.timestamp()))


def allowances(control: ControlSet, local: Iterable[Budget], now_s: float) -> dict[str, Allowance]:
    """Return the budgets that count, by name, those of this node's configuration included.

    Of a name an admin's newest counts before what operators say of it; what is newer than an
    admin's removal counts again. One of the configuration gives way to any of its name in the mesh.
    """
    said: dict[str, list[tuple[bool, tuple[int, bytes], Entry]]] = {}
    for entry_id, entry in control.held(Budget).items():
        role = control.role_of(entry.issuer)
        if role in MAY_SET and entry.issued_s <= now_s + SKEW_S:
            word = (role == "admin", (entry.issued_s, entry_id), entry)
            said.setdefault(entry.slot, []).append(word)
    found = {
        budget.name: Allowance(_local_id(budget), budget.name, budget.terms)
        for budget in local
        if budget.terms is not None
    }
    counting = [one for words in said.values() if (one := _counting(words)) is not None]
    return found | {one.name: one for one in _bounded(counting)}


def _counting(words: list[tuple[bool, tuple[int, bytes], Entry]]) -> Allowance | None:
    newest = max(words, key=lambda word: word[1])
    by_admins = [word for word in words if word[0]]
    if by_admins:
        last = max(by_admins, key=lambda word: word[1])
        newest = newest if _terms(last[2]) is None else last
    is_admins, (issued_s, entry_id), entry = newest
    terms = _terms(entry)
    if terms is None:
        return None
    return Allowance(entry_id, entry.slot, terms, entry.issuer, issued_s, is_admins)


def _terms(entry: Entry) -> Terms | None:
    return entry.body.terms if isinstance(entry.body, Budget) else None


def _bounded(counting: list[Allowance]) -> Iterable[Allowance]:
    """Mark what is too much: who floods the set takes no room from others' budgets."""
    counting.sort(key=lambda one: (not one.by_admin, one.issued_s, one.budget_id))
    of_issuer: dict[bytes, int] = {}
    in_force = 0
    for one in counting:
        count = of_issuer[one.issuer] = of_issuer.get(one.issuer, 0) + 1
        is_ignored = count > OF_ONE_MAX or in_force >= IN_FORCE_MAX
        in_force += not is_ignored
        yield replace(one, ignored=is_ignored)


def _local_id(budget: Budget) -> bytes:
    return sha256(pack(["local", budget.to_map()])).digest()[:ENTRY_ID_BYTES]


def fits(terms: Terms, who: Who) -> bool:
    """Whether what was spent for somebody counts; whoever is not known is nobody in particular."""
    return (
        terms.owner in {"", who.owner}
        and terms.agent in {"", who.agent}
        and terms.project in {"", who.project}
        and (not terms.specialization or terms.specialization in who.specializations)
    )


def who_of(record: SessionRecord) -> Who:
    """Return for whom a session works, as its owner fixed it at the start."""
    return Who(record.owner or "", record.agent_id, record.project or "", record.specializations)


def judge(terms: Terms, spent: Spent, heard: Heard) -> Verdict:
    """Compare what is known to be spent with a limit."""
    amount = spent.nusd if terms.unit == USD else min(spent.tokens, COUNT_MAX)
    percent = min(amount * 100 // terms.limit, PERCENT_MAX)
    standing = Standing.OK
    if amount >= terms.limit:
        standing = Standing.EXCEEDED
    elif amount * 100 >= terms.warn_percent * terms.limit:
        standing = Standing.WARNED
    action = ""
    if standing is Standing.EXCEEDED:
        action = terms.then if heard.is_full else "suspend"
    return Verdict(standing, amount, percent, action, _reason(terms, amount, spent, heard, action))


def _reason(terms: Terms, amount: int, spent: Spent, heard: Heard, action: str) -> str:
    places, unit = _unit_of(terms.limit, terms.unit)
    spent_text = f"{rounded_text(amount, terms.limit, places)}{unit}"  # told apart, and in one unit
    words = [f"{spent_text} of {amount_text(terms.limit, terms.unit)} spent this {terms.per}"]
    if not heard.is_full:
        known = f"{heard.heard} of {heard.known} nodes heard, so it may be more"
        held_back = action == "suspend" and terms.then == "kill"
        words.append(f"{known}; suspended instead of killed" if held_back else known)
    if terms.unit == USD and spent.unpriced:
        tokens = min(sum(spent.unpriced.values()) + spent.unpriced_more_tokens, COUNT_MAX)
        models = _named(sorted(spent.unpriced), spent.unpriced_more)
        words.append(f"no price for {tokens:,} tokens of {models}")
    if spent.unsure:
        older = f"{min(spent.unsure, COUNT_MAX):,} tokens of (older sessions)"
        words.append(f"whether {older} count is not known")
    return "; ".join(words)


def _named(models: list[str], others: int, most: int = 3) -> str:
    left = len(models[most:]) + others
    return ", ".join(one[:40] for one in models[:most]) + (f" and {left} more" if left else "")


def hold_key(budget_id: bytes, window: Window) -> bytes:
    """Name what a budget does in a window: 16 bytes."""
    return sha256(pack(["budget", budget_id, window.start_s])).digest()[:ENTRY_ID_BYTES]


class Hold(msgspec.Struct, frozen=True):
    """What a budget does to a session of ours."""

    allowance: Allowance
    window: Window
    action: str  # suspend or kill
    reason: str
    session: SessionRecord

    @property
    def key(self) -> tuple[bytes, str]:
        """What is done once."""
        return hold_key(self.allowance.budget_id, self.window), self.session.session_id


def holds(
    allowance: Allowance,
    window: Window,
    verdict: Verdict,
    sessions: Iterable[SessionRecord],
    done: Collection[tuple[bytes, str]],
) -> list[Hold]:
    """Return what is to be done now; what was done in this window is in `done`.

    A session that has not begun waits until it has; one that stands still need not be suspended.
    """
    if not verdict.action:
        return []
    able = WORKING if verdict.action == "suspend" else WORKING | {State.SUSPENDED}
    found = (
        Hold(allowance, window, verdict.action, verdict.reason, session)
        for session in sessions
        if session.state in able and fits(allowance.terms, who_of(session))
    )
    return [one for one in found if one.key not in done]


class Told(msgspec.Struct, frozen=True):
    """What was told last of a budget: in which window, and the worst of it."""

    start_s: int
    standing: Standing


class Latches:
    """Which news of budgets are told: each once a window, whatever totals do in between."""

    def __init__(self, told: Mapping[bytes, Told] | None = None) -> None:
        self.told = dict(told or {})

    def step(self, budget_id: bytes, window: Window, standing: Standing) -> list[News]:
        """Return what is news: in a window that was told of, or an earlier one, what is worse.

        What was told of a window beyond the next was by a clock that was ahead: were it believed,
        nothing would be told until then.
        """
        last = self.told.get(budget_id, Told(window.start_s, Standing.OK))
        news: list[News] = []
        if window.start_s > last.start_s or last.start_s > window.end_s:
            news += [News.LIFTED] if RANK[last.standing] else []
            last = Told(window.start_s, Standing.OK)
        if RANK[standing] > RANK[last.standing]:
            news.append(News(standing))
            last = replace(last, standing=standing)
        self.told[budget_id] = last
        return news

    def forget(self, budget_id: bytes) -> list[News]:
        """Return what is news when a budget counts no more."""
        last = self.told.pop(budget_id, None)
        return [News.LIFTED] if last is not None and RANK[last.standing] else []
