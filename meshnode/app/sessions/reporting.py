"""Usage that an agent reports itself: counted once by its id, under its own session.

Invariants: the same id counts once, whatever is sent how often; a session has at most REPORTS_MAX
records and MODELS_MAX models, so no agent can swell the ledger that all nodes hold.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from meshnode.app.outcomes import settle
from meshnode.core.errors import ExhaustedError, UsageError
from meshnode.core.ledger.ledger import Buckets, UsageRecord
from meshnode.core.ledger.tiers import tier_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from meshnode.app.ports import Clock
    from meshnode.app.sessions.sessions import OwnSessions
    from meshnode.core.ledger.ledger import LedgerRow
    from meshnode.core.sessions.sessions import SessionRecord

SOURCE = "report"
REPORTS_MAX = 100_000  # of one session whose records are kept; more: ExhaustedError
MODELS_MAX = 64  # that one session reports; more: ExhaustedError
WAITING_MAX = 1000  # to be kept, at a time; more: ExhaustedError
TEXT_CHARS_MAX = 256
TOKENS_MAX = 10**9  # of one bucket of one response, far beyond any model's window: UsageError


class Report(msgspec.Struct, frozen=True):
    """What an agent says that one response has used."""

    report_id: str
    model: str
    usage: Buckets
    provider: str = ""
    tier: str = ""


class Tally(msgspec.Struct):
    """What one session has reported."""

    reports: int = 0
    models: set[str] = msgspec.field(default_factory=set)


class ReportBook(Protocol):
    """The ledger, as reports reach it."""

    async def tally(self, session_id: str) -> Tally:
        """Count what a session has reported: all models, and responses whose records are kept."""

    async def knows(self, record: UsageRecord) -> bool:
        """Whether it is counted already; raises ConflictError if it said something else."""

    async def count(self, record: UsageRecord) -> list[LedgerRow]:
        """Keep a record that is not known, synced; returns the rows to publish."""


class ReportDesk:
    """Takes the reports of this node's sessions."""

    def __init__(
        self,
        sessions: OwnSessions,
        book: ReportBook,
        publish: Callable[[Iterable[LedgerRow]], None],
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._sessions = sessions
        self._book = book
        self._publish = publish
        self._clock = clock
        self._spawn = spawn
        self._tallies: dict[str, Tally] = {}  # of live sessions
        self._one_at_a_time = asyncio.Lock()
        self._waiting = 0  # those whose senders are gone included
        self.on_report: Callable[[str], None] = _nobody_told

    async def take(self, session: SessionRecord, report: Report) -> bool:
        """Count a report, or return False if it was counted before.

        Raises UsageError, ConflictError for other numbers under a known id, ExhaustedError.
        """
        if self._waiting >= WAITING_MAX:
            raise ExhaustedError(f"{WAITING_MAX} reports wait to be kept", "report it again")
        # Whoever hangs up has reported all the same: what is kept is said, and counts as one more.
        outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        taking = self._take(session, self._record(session, report))
        self._waiting += 1
        self._spawn(settle(taking, outcome))
        return await asyncio.shield(outcome)

    async def _take(self, session: SessionRecord, record: UsageRecord) -> bool:
        try:
            return await self._counted(session, record)
        finally:
            self._waiting -= 1

    async def _counted(self, session: SessionRecord, record: UsageRecord) -> bool:
        async with self._one_at_a_time:
            if await self._book.knows(record):
                return False
            tally = await self._tally_of(session.session_id)
            if tally.reports >= REPORTS_MAX:
                raise ExhaustedError(f"this session has reported {REPORTS_MAX} responses")
            if record.model not in tally.models and len(tally.models) >= MODELS_MAX:
                raise ExhaustedError(f"this session has reported {MODELS_MAX} models")
            rows = await self._book.count(record)
            tally.reports += 1
            tally.models.add(record.model)
        self._publish(rows)
        self.on_report(session.session_id)
        return True

    async def _tally_of(self, session_id: str) -> Tally:
        tally = self._tallies.get(session_id)
        if tally is None:
            live = {record.session_id for record in self._sessions.live()}
            self._tallies = {one: kept for one, kept in self._tallies.items() if one in live}
            tally = self._tallies[session_id] = await self._book.tally(session_id)
        return tally

    def _record(self, session: SessionRecord, report: Report) -> UsageRecord:
        _check(report)
        return UsageRecord(
            idem_key=idem_key_of(session.session_id, report.report_id),
            source=SOURCE,
            at_s=self._clock.wall_s(),
            session=session.session_id,
            project=session.project or "",
            agent=session.agent_id,
            owner=session.owner or "",
            model=report.model,
            provider=report.provider,
            tier=tier_of(report.tier, report.usage.prompt),
            usage=report.usage,
        )


def _nobody_told(session_id: str) -> None:
    del session_id


def idem_key_of(session_id: str, report_id: str) -> str:
    """Return what a report is known by: no session can name another one's."""
    return f"{SOURCE}:{session_id}:{report_id}"


def _check(report: Report) -> None:
    texts = {"id": report.report_id, "model": report.model}
    for name, text in texts.items():
        if not text.strip():
            raise UsageError(f"a report needs the {name} of a response")
    for name, text in (texts | {"provider": report.provider, "tier": report.tier}).items():
        if len(text) > TEXT_CHARS_MAX:
            raise UsageError(f"the {name} has more than {TEXT_CHARS_MAX} characters")
    if not all(0 <= count <= TOKENS_MAX for count in report.usage.counts):
        raise UsageError(f"a count is 0 to {TOKENS_MAX}, for one response")
    if report.usage.reasoning > report.usage.output:
        raise UsageError("reasoning is a part of output, so it is not more than that")
