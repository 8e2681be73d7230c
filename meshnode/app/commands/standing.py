"""Standing kills at the owner of what they mean: carried out once each, and told of.

Invariant: an order is on disk as begun before it is carried out, and what became of it is shown
with the session, on all nodes. Whether it still stands is asked again at that very moment. One
whose signer may not kill any more is told of once, and costs neither disk nor feed: who has stolen
a key may have left any number of them.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from meshnode.app.sessions.done import Done
from meshnode.core.commands.standing import REVOKED, Due, Patience, due, objection, void
from meshnode.core.control.entries import StandingKill
from meshnode.core.errors import MeshError, RefusedError
from meshnode.core.ids import b32
from meshnode.core.keys import key_id_of
from meshnode.core.links.liveness import MemberState
from meshnode.core.links.overlay import LINKS_MAX, REDIAL_S

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from meshnode.app.mesh.mesh import Mesh
    from meshnode.app.ports import Clock, OrderBook
    from meshnode.app.sessions.sessions import OwnSessions
    from meshnode.core.commands.standing import Standing
    from meshnode.core.sessions.sessions import SessionRecord

AT_ONCE = 16  # trees that are being ended
LOOK_S = 0.5  # while waiting for a first comparison with a neighbour
LOOK_AGAIN_S = 30.0  # for what could not be begun, and for sessions that peers have returned
TOLD_CHARS_MAX = 200  # of a detail, beside its session
# Two dials of a pair as far apart as they get, and two comparisons: who is not heard by then is
# away, or holds other entries than we do, and a kill that was ordered is not kept back for that.
UNHEARD_S = REDIAL_S * LINKS_MAX / 8 * 1.3 + 30.0


class StandingKills:
    """Carries out what is due; `tell` puts it into the log, without a session what is void."""

    def __init__(
        self,
        mesh: Mesh,
        sessions: OwnSessions,
        book: OrderBook,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        tell: Callable[[Standing, SessionRecord | None, Done], None],
    ) -> None:
        self._mesh = mesh
        self._sessions = sessions
        self._book = book
        self._clock = clock
        self._spawn = spawn
        self._tell = tell
        self._taken: set[tuple[bytes, str]] = set()
        self._void: set[bytes] = set()  # orders, of those held, that were told of as refused
        self._held_up: set[tuple[bytes, str]] = set()
        self._room = asyncio.Semaphore(AT_ONCE)
        self._heard = asyncio.Event()
        self._patience = Patience(clock.steady_s(), UNHEARD_S)

    def restore(self, done: Iterable[tuple[bytes, str]]) -> None:
        """Take over what earlier runs have answered."""
        self._taken.update(done)

    def heard(self) -> None:
        """Note that the control set has another entry: an order, a cancel, a revocation.

        What comes after a time apart comes piece by piece, so that we compare once more.
        """
        self._mesh.replication.doubt()
        self._patience.note(self._clock.steady_s())
        self._heard.set()

    async def run(self, agents_found: asyncio.Event) -> None:
        """Look whenever something came, and now and then; until cancelled."""
        await agents_found.wait()
        while True:
            left_s = self.look()
            if left_s <= LOOK_S:
                await asyncio.sleep(left_s)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self._heard.wait()

    def look(self) -> float:
        """Begin what is due, if it is time; returns in how many seconds to look again.

        After LOOK_AGAIN_S, unless an entry comes before.
        """
        at_s = self._patience.ready_at_s(abreast=is_abreast(self._mesh))
        left_s = at_s - self._clock.steady_s()
        if left_s > 0:
            return min(left_s, LOOK_S)
        self._heard.clear()
        self._patience.looked()
        now_s, live = self._clock.wall_s(), list(self._sessions.live())
        control, here = self._mesh.control, self._mesh.self_id
        for one in due(control, here, live, self._taken, now_s, self._held_up):
            self._taken.add(one.key)
            self._spawn(self._answer(one))
        self._void.intersection_update(control.held(StandingKill))
        for refused in void(control, here, live, self._void, now_s):
            self._void.add(refused.order_id)
            self._tell(refused, None, Done("refused", REVOKED))
        return LOOK_AGAIN_S

    async def _answer(self, one: Due) -> None:
        """Carry out one order on one session; whatever happens, tell."""
        async with self._room:
            try:
                now_s = self._clock.wall_s()
                issuer, expires_s = one.standing.issuer, one.standing.expires_s
                if not await self._book.begin(one.key, issuer, expires_s, now_s):
                    return
            except RefusedError as error:  # our disk: what cannot be noted down is not begun
                self._taken.discard(one.key)
                if one.key not in self._held_up:
                    self._held_up.add(one.key)
                    self._tell(one.standing, one.session, Done("waits", error.message))
                return
            self._held_up.discard(one.key)
            done = await self._carry_out(one)
            await self._book.finish(one.key, done.outcome)
            order_id = b32(one.standing.order_id)
            told = f"{order_id} {done.outcome} {done.detail[:TOLD_CHARS_MAX]}"
            await self._sessions.note_order(one.session.session_id, told)
            self._tell(one.standing, one.session, done)

    async def _carry_out(self, one: Due) -> Done:
        standing = one.standing
        record = self._sessions.get(one.session.session_id)
        why_not = objection(self._mesh.control, standing, self._clock.wall_s())
        if record is None:
            why_not = "the session is no more"
        if why_not or record is None:
            return Done("refused", why_not)
        args = {"force": standing.kill.force, "grace_s": standing.kill.grace_s}
        by = key_id_of(standing.issuer)
        try:
            return await self._sessions.kill(record, b32(standing.order_id), args, by)
        except MeshError as error:
            return Done("failed", error.message)


def is_abreast(mesh: Mesh) -> bool:
    """Whether every cancel that a neighbour knew has been seen, or nobody is there to ask."""
    others = {
        peer
        for peer in mesh.liveness.members()
        if peer != mesh.self_id and mesh.liveness.state(peer) is not MemberState.LEFT
    }
    is_alone = not (others or mesh.overlay.links)
    return mesh.replication.abreast or is_alone
