"""Budgets at a node: judged by what the whole mesh has spent, told of, and refused beyond.

Invariant: while no budget counts, nothing is added up and nobody is woken. What is told and done
follows from `core.budgets`; a session is held by the node that owns it, and by nobody else.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec.structs import replace

from meshnode.app.budgets.held import held_by, with_held
from meshnode.app.budgets.outlays import Outlays
from meshnode.app.commands.standing import UNHEARD_S, is_abreast
from meshnode.app.pieces import in_pieces
from meshnode.app.queries.views import AheadBudget, BudgetView
from meshnode.core.commands.standing import Patience
from meshnode.core.control.settings import Budget
from meshnode.core.errors import RefusedError
from meshnode.core.ids import b32, pasted, unb32
from meshnode.core.keys import key_id_of
from meshnode.core.ledger.budgets import (
    IN_FORCE_MAX,
    MAY_SET,
    SKEW_S,
    Allowance,
    Heard,
    Hold,
    Latches,
    News,
    Standing,
    Told,
    Verdict,
    Window,
    allowances,
    fits,
    hold_key,
    holds,
    judge,
    who_of,
    window_of,
)
from meshnode.core.ledger.ledger import COUNT_MAX, LEDGER
from meshnode.core.sessions.sessions import SESSIONS, SessionRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshnode.app.budgets.withholding import Withholding
    from meshnode.app.cost.tally import Prices
    from meshnode.app.ports import Clock
    from meshnode.app.queries.queries import Queries
    from meshnode.core.control.entries import Entry
    from meshnode.core.control.settings import Terms
    from meshnode.core.effects import Announce

LOOK_S = 1.0  # between two looks, however much is spent
LOOK_SOON_S = 0.5  # while waiting for a first comparison with a neighbour
LOOK_AGAIN_S = 30.0  # with nothing new: for clocks that jump, and for what could not be done
_log = logging.getLogger("session_mesh.budgets")


class BudgetDesk:
    """Judges budgets. `tell` is told what is news of one; `on_change` which count, and how."""

    def __init__(
        self,
        queries: Queries,
        prices: Prices,
        clock: Clock,
        withholding: Withholding,
        live: Callable[[], list[SessionRecord]],
        local: Sequence[Budget] = (),
    ) -> None:
        self._queries = queries
        self._mesh = queries.mesh
        self._clock = clock
        self._withholding = withholding
        withholding.calls_for = self._calls_for
        self._live = live
        self._local = tuple(local)
        self._outlays = Outlays(self._mesh.tables, prices)
        self._counting: dict[str, Allowance] = {}
        self._windows: dict[bytes, Window] = {}
        self._asked: dict[bytes, tuple[Terms, Window]] = {}
        self._looked_at_s = 0.0
        self._priced_at_s = float("-inf")  # when the price lists were looked at
        self._stale = asyncio.Event()
        withholding.judge_again = self._stale.set
        self._patience = Patience(clock.steady_s(), UNHEARD_S)
        self._caught_up = False  # once since the start: who is cut off later acts on what it knows
        self._latches = Latches()
        self._known: dict[str, bytes] = {}  # which budget of each name an earlier run has told of
        self.shown: dict[str, BudgetView] = {}  # as judged last, without the sessions held
        self.tell: Callable[[News, BudgetView], None] = _nobody_told
        self.on_change: Callable[[BudgetView | None, BudgetView | None], None] = _nobody_told

    def restore(self, told: dict[bytes, Told], known: dict[str, bytes]) -> None:
        """Take over what earlier runs have told, and of which budgets, by name."""
        self._latches, self._known = Latches(told), known

    @property
    def told(self) -> tuple[dict[bytes, Told], dict[str, bytes]]:
        """What was told, to be restored after a restart."""
        known = {name: unb32(view.budget_id) for name, view in self.shown.items()}
        return self._latches.told, known

    def heard(self) -> None:
        """Note that the control set has another entry: a budget, a role, a revocation."""
        if self._mesh.control.held(Budget) or self._counting:
            self._patience.note(self._clock.steady_s())
            self._stale.set()

    def take(self, news: Announce) -> None:
        """Take what the mesh announces: whatever may change a sum, or how much is heard."""
        if not self._counting:
            return
        if news.origin is not None:
            if news.replaced:
                self._outlays.touch_all(news.origin)
            for table, key in news.places:
                if table == LEDGER:
                    self._outlays.touch(news.origin, key)
                elif table == SESSIONS:
                    self._outlays.touch_session(news.origin, key.decode(errors="replace"))
        if news.members or news.replaced or news.tables & {LEDGER, SESSIONS}:
            self._stale.set()

    async def run(self, agents_found: asyncio.Event) -> None:
        """Look whenever something came, at window ends, and now and then; until cancelled."""
        await agents_found.wait()
        while True:
            try:
                left_s = self.look()
            except Exception:  # noqa: BLE001 - whatever it was: budgets must not end with it
                _log.exception("budgets could not be judged; trying again")
                await asyncio.sleep(LOOK_AGAIN_S)
                continue
            if not self._outlays.busy:
                with suppress(TimeoutError):
                    async with asyncio.timeout(left_s):
                        await self._stale.wait()
            rest_s = self._looked_at_s + LOOK_S - self._clock.steady_s()
            await asyncio.sleep(0 if self._outlays.busy else max(0.0, rest_s))

    def look(self) -> float | None:
        """Judge all budgets; returns in how many seconds to look again, None: once something came.

        While the sums are not complete nothing is judged: look again at once.
        """
        self._stale.clear()
        now_s, self._looked_at_s = self._clock.wall_s(), self._clock.steady_s()
        self._refresh(now_s)
        self._outlays.settle()
        if self._outlays.busy:
            return 0.0
        self._retell()
        if not self._counting:
            self._patience.looked()
            return self._until_one_begins_s(now_s)
        left_s = self._enforce()
        ends_s = min((window.end_s for window in self._windows.values()), default=now_s)
        return max(0.05, min(left_s, ends_s - now_s))

    def _until_one_begins_s(self, now_s: float) -> float | None:
        """Return when to look whether one counts that is dated ahead; None if none is."""
        latest_s = now_s + SKEW_S
        dated_s = (entry.issued_s for entry in self._mesh.control.held(Budget).values())
        ahead_s = [issued_s - latest_s for issued_s in dated_s if issued_s > latest_s]
        return max(0.05, min(LOOK_AGAIN_S, *ahead_s)) if ahead_s else None

    def check_start(self, record: SessionRecord) -> None:
        """Raise RefusedError for a session that would spend from a budget that is exceeded."""
        if not self._counting:
            return
        self._settle()
        heard = self._heard()
        for one in self._in_force():
            verdict = self._judge(one, heard)
            if verdict.standing is Standing.EXCEEDED and fits(one.terms, who_of(record)):
                raise RefusedError(
                    f"budget {one.name} is exceeded: {verdict.reason}",
                    f"wait for the next {one.terms.per}, or raise it: session-mesh budget set"
                    f" {pasted(one.name)} with a higher --limit, and all else as it is",
                )

    async def listed(self, name: str = "") -> list[BudgetView]:
        """Return every budget that counts, by name, or the one of a name; and where each stands."""
        self._settle()
        counting = [one.budget_id for one in self._counting.values()]
        held = await in_pieces(held_by(self._queries, counting))
        self._settle()
        while self._outlays.busy:
            await asyncio.sleep(0)
            self._settle()
        heard = self._heard()
        return [
            with_held(self._queries, self._view(one, heard), held.get(b32(one.budget_id), []))
            for _, one in sorted(self._counting.items())
            if name in {"", one.name}
        ]

    def issued(self, name: str = "") -> dict[str, int]:
        """Return when each name, or one, was last set or removed, as far as that counts by now."""
        latest: dict[str, int] = {}
        now_s = self._clock.wall_s()
        for entry in self._mesh.control.held(Budget).values():
            if entry.issued_s <= now_s + SKEW_S and name in {"", entry.slot}:
                latest[entry.slot] = max(entry.issued_s, latest.get(entry.slot, 0))
        return latest

    def set_by(self, name: str) -> Counter[str]:
        """Return how many budgets each key has set that count, but for the one of a name."""
        others = (one for one in self._counting.values() if one.issuer and one.name != name)
        return Counter(key_id_of(one.issuer) for one in others)

    def ahead(self, name: str = "") -> list[AheadBudget]:
        """Return what does not count yet, or of one name; the earliest first."""
        control, latest_s = self._mesh.control, self._clock.wall_s() + SKEW_S
        found = [
            AheadBudget(entry.slot, key_id_of(entry.issuer), entry.issued_s, _removes(entry))
            for entry in control.held(Budget).values()
            if entry.issued_s > latest_s
            and name in {"", entry.slot}
            and control.role_of(entry.issuer) in MAY_SET
        ]
        return sorted(found, key=lambda one: (one.issued_s, one.name))[:IN_FORCE_MAX]

    def _settle(self) -> None:
        self._refresh(self._clock.wall_s())
        self._outlays.settle()

    def _refresh(self, now_s: float) -> None:
        """Find out which budgets count, in which windows."""
        if not (self._mesh.control.held(Budget) or self._local or self._counting):
            return
        self._counting = allowances(self._mesh.control, self._local, now_s)
        windows = {one.budget_id: window_of(one.terms.per, now_s) for one in self._in_force()}
        if windows != self._windows:
            self._windows = windows
            self._withholding.keep_only(hold_key(*pair) for pair in windows.items())
        asked = {one.budget_id: (one.terms, windows[one.budget_id]) for one in self._in_force()}
        if asked != self._asked:
            self._asked = asked
            self._outlays.ask(asked)
        if self._clock.steady_s() - self._priced_at_s >= LOOK_S:
            self._priced_at_s = self._clock.steady_s()
            self._outlays.take_prices()

    def _in_force(self) -> list[Allowance]:
        return [one for _, one in sorted(self._counting.items()) if not one.ignored]

    def _heard(self) -> Heard:
        coverage = self._queries.coverage()
        return Heard(coverage.nodes_heard, coverage.nodes_known)

    def _judge(self, one: Allowance, heard: Heard) -> Verdict:
        return judge(one.terms, self._outlays.spent(one.budget_id), heard)

    def _calls_for(self, hold: Hold) -> str:
        """Say what a hold that is about to be carried out is by now; empty if it is none."""
        self._settle()
        present = self._counting.get(hold.allowance.name)
        if (
            self._outlays.busy
            or present != hold.allowance
            or self._windows.get(present.budget_id) != hold.window
        ):
            return ""
        return self._judge(present, self._heard()).action

    def _enforce(self) -> float:
        """Do what is due, if it is time; returns in how many seconds to look again."""
        abreast = is_abreast(self._mesh)
        # The entry that sets a first budget is itself a reason to doubt.
        self._caught_up |= abreast or self._mesh.replication.was_abreast
        now_s = self._clock.steady_s()
        ready_s = {
            "suspend": self._patience.ready_at_s(abreast=self._caught_up) - now_s,
            "kill": self._patience.ready_at_s(abreast=abreast) - now_s,
        }
        if ready_s["kill"] <= 0:
            self._patience.looked()
        heard, live, done = self._heard(), self._live(), self._withholding.done()
        left_s = min(LOOK_AGAIN_S, self._withholding.left_s())
        for one in self._in_force():
            verdict = self._judge(one, heard)
            due = holds(one, self._windows[one.budget_id], verdict, live, done)
            if due and ready_s[verdict.action] > 0:
                left_s = min(left_s, max(ready_s[verdict.action], 0.0), LOOK_SOON_S)
            elif due:
                self._withholding.carry_out(due)
        return left_s

    def _retell(self) -> None:
        """Tell what is news."""
        heard = self._heard()
        for name in sorted(self.shown.keys() - {one.name for one in self._in_force()}):
            gone = self.shown.pop(name)
            self._lift(gone)
            self.on_change(gone, None)
        for one in self._in_force():
            view = self._view(one, heard)
            self._show(self.shown.get(one.name), view)
            window, standing = self._windows[one.budget_id], self._judge(one, heard).standing
            for news in self._latches.step(one.budget_id, window, standing):
                self.tell(news, view)
        for budget_id in self._latches.told.keys() - self._windows.keys():
            self._latches.forget(budget_id)  # of an earlier run: nobody knows what it was

    def _show(self, before: BudgetView | None, view: BudgetView) -> None:
        self.shown[view.name] = view
        known = self._known.pop(view.name, None)
        if before is not None and before.budget_id != view.budget_id:
            self._lift(before)
            self.on_change(before, view)
        elif before is None and known != unb32(view.budget_id):
            self.on_change(None, view)

    def _lift(self, view: BudgetView) -> None:
        for news in self._latches.forget(unb32(view.budget_id)):
            self.tell(
                news,
                replace(view, state=Standing.OK, reason="it was removed, set anew, or is too many"),
            )

    def _view(self, one: Allowance, heard: Heard) -> BudgetView:
        window = self._windows.get(one.budget_id, window_of(one.terms.per, self._clock.wall_s()))
        view = BudgetView(
            budget_id=b32(one.budget_id),
            name=one.name,
            terms=one.terms,
            issuer=key_id_of(one.issuer) if one.issuer else "",
            issued_s=one.issued_s,
            state=Standing.IGNORED,
            reason="too many budgets: this one does not count",
            amount=0,
            tokens=0,
            percent=0,
            start_s=window.start_s,
            end_s=window.end_s,
            nodes_heard=heard.heard,
            nodes_known=heard.known,
            by_admin=one.by_admin,
        )
        if one.ignored:
            return view
        spent, verdict = self._outlays.spent(one.budget_id), self._judge(one, heard)
        return replace(
            view,
            state=verdict.standing,
            reason=verdict.reason,
            amount=verdict.amount,
            tokens=min(spent.tokens, COUNT_MAX),
            percent=verdict.percent,
            unpriced=tuple((m, min(t, COUNT_MAX)) for m, t in sorted(spent.unpriced.items())),
            unpriced_more=spent.unpriced_more,
            unpriced_more_tokens=min(spent.unpriced_more_tokens, COUNT_MAX),
        )


def _removes(entry: Entry) -> bool:
    return isinstance(entry.body, Budget) and entry.body.terms is None


def _nobody_told(*_: object) -> None:
    pass
