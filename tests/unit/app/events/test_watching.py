"""Those who watch get a snapshot, then every change once, at any pace, resumed anywhere."""

import asyncio
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.app.seen import ACTS, OnePrice, Seen, act, bare

from meshnode.app import pieces
from meshnode.app.cost import spending
from meshnode.app.cost.spending import PRICE_ROWS, ROWS_AT_ONCE
from meshnode.app.cost.tally import Rated
from meshnode.app.events import events, watching
from meshnode.app.events.events import EventLog
from meshnode.app.events.things import Kind, Op, identity_of
from meshnode.app.events.watching import COSTS_S, WATCHERS_MAX, WatchDesk, Watching
from meshnode.app.settling import SETTLED_S
from meshnode.core.errors import ExhaustedError, UsageError
from meshnode.core.links.liveness import MemberState
from meshnode.core.sessions.sessions import State

WAIT_S = 10
SLOTS = 30  # of each session that has spent


class Desk(Seen):
    """A node whose changes go to a desk, and from there to those who watch."""

    def __init__(self) -> None:
        self.desk = None
        super().__init__()
        self.desk = WatchDesk(self.changes, EventLog("abcdefgh", 1, "wwwwwwww"), self.clock)

    async def begun(self) -> "Desk":
        await self.desk.begin(self.mesh.tables.origins(), resumed=False)
        return self

    def take(self, changes) -> None:
        if self.desk is not None:
            self.desk._give_out(changes)

    def settle(self) -> None:
        self.clock.now_s += COSTS_S
        self.desk.settle()


class Watcher:
    """What somebody knows from a stream."""

    def __init__(self, position: str = "", kinds: tuple[str, ...] = (), about: str = "") -> None:
        self.wanted = Watching(position, kinds, about)
        self.model: dict = {}
        self.told: list = []
        self.position = position
        self.seqs: list[int] = []

    def take(self, told) -> None:
        event = told.event
        self.told.append(event)
        self.position = told.position or self.position
        if event.op in {Op.RESET, Op.LAGGED}:
            self.model, self.seqs = {}, []
        elif event.kind is not Kind.WATCH:
            identity = identity_of(event.kind, event.view)
            if event.op is Op.REMOVED:
                del self.model[identity]
            else:
                assert event.op is not Op.SNAPSHOT or identity not in self.model
                self.model[identity] = bare(event.view)
            self.seqs += [event.seq] if event.seq else []
            assert self.seqs == sorted(set(self.seqs)), "nothing twice, all in order"

    async def read(self, desk: WatchDesk) -> None:
        """Read until the desk closes."""
        async for told in desk.watch(self.wanted):
            self.take(told)

    async def catch_up(self, desk: WatchDesk) -> None:
        """Read what there is, then leave."""
        async with asyncio.timeout(WAIT_S), aclosing(desk.watch(self.wanted)) as stream:
            async for told in stream:
                self.take(told)
                is_current = told.position == desk.log.position(desk.log.last)
                if is_current or (told.event.op is Op.RESUMED and not desk.log.after(0, 1)[0]):
                    break
        self.wanted = Watching(self.position, self.wanted.kinds, self.wanted.about)

    @property
    def ops(self) -> list[str]:
        return [f"{event.kind} {event.op}" for event in self.told]


@pytest.fixture
async def seen() -> Desk:
    return await Desk().begun()


async def test_a_snapshot_comes_first_and_says_when_it_is_complete(seen):
    seen.session(1, "alpha", specs=("docs",))
    seen.settle()
    watcher = Watcher()
    await watcher.catch_up(seen.desk)
    assert watcher.ops == ["node snapshot"] * 4 + [
        "session snapshot",
        "agent snapshot",
        "watch complete",
    ]
    assert all(event.seq == 0 for event in watcher.told)
    assert watcher.position == seen.desk.log.position(seen.desk.log.last)


async def test_what_was_not_looked_at_yet_is_in_the_snapshot_of_who_asks(seen):
    seen.desk.before_answers = lambda: seen.session(1, "alpha")
    watcher = Watcher(kinds=("session",))
    await watcher.catch_up(seen.desk)
    assert watcher.ops == ["session snapshot", "watch complete"]


async def test_whoever_comes_back_gets_what_happened_meanwhile_and_nothing_else(seen):
    watcher = Watcher(kinds=("session",))
    await watcher.catch_up(seen.desk)
    seen.session(1, "alpha")
    seen.session(1, "alpha", State.CLOSED)
    before = len(watcher.told)
    await watcher.catch_up(seen.desk)
    assert watcher.ops[before:] == ["watch resumed", "session added", "session changed"]


async def test_a_position_of_another_node_is_answered_with_a_word_and_a_snapshot(seen):
    watcher = Watcher("somewhere-else", kinds=("node",))
    await watcher.catch_up(seen.desk)
    assert watcher.ops == ["watch reset", *["node snapshot"] * 4, "watch complete"]


async def test_who_is_too_slow_is_told_so_and_begins_anew_while_others_go_on(seen, monkeypatch):
    monkeypatch.setattr(events, "EVENTS_MAX", 20)
    slow, quick = Watcher(kinds=("session",)), Watcher(kinds=("session",))
    async with (
        asyncio.timeout(WAIT_S),
        asyncio.TaskGroup() as tasks,
        aclosing(seen.desk.watch(slow.wanted)) as stream,
    ):
        reading = tasks.create_task(quick.read(seen.desk))
        slow.take(await anext(stream))
        for number in range(60):
            seen.session(1, f"s{number}")
            await asyncio.sleep(0)
        while slow.model != quick.model or "watch lagged" not in slow.ops:
            slow.take(await anext(stream))
        reading.cancel()
    assert slow.ops.count("watch lagged") == 1
    assert "watch lagged" not in quick.ops
    assert len(quick.model) == 60


async def test_only_so_many_may_watch_and_a_place_is_free_again_when_one_leaves(seen):
    streams = [seen.desk.watch(Watching()) for _ in range(WATCHERS_MAX)]
    for stream in streams:
        await anext(stream)
    with pytest.raises(ExhaustedError, match="watch this node already"):
        await anext(seen.desk.watch(Watching()))
    await streams[0].aclose()
    again = seen.desk.watch(Watching())
    assert (await anext(again)).event.op is Op.SNAPSHOT
    for stream in [*streams, again]:
        await stream.aclose()


@pytest.mark.parametrize(
    "wanted",
    [Watching(kinds=("nonsense",)), Watching(about="x" * 513), Watching(position="x" * 65)],
)
async def test_what_makes_no_sense_is_refused_in_a_sentence(seen, wanted):
    with pytest.raises(UsageError):
        await anext(seen.desk.watch(wanted))


async def test_a_stream_ends_when_the_node_does_with_all_that_was_to_be_told(seen):
    watcher = Watcher(kinds=("session",))
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(watcher.read(seen.desk))
        await asyncio.sleep(0)
        seen.session(1, "alpha")
        seen.desk.close()
    assert [view.record.session_id for view in watcher.model.values()] == ["alpha"]


async def test_events_of_one_agent_or_node_are_told_alone(seen):
    one, whole = Watcher(about="agent-a"), Watcher(about="node2")
    for watcher in (one, whole):
        await watcher.catch_up(seen.desk)
    seen.session(1, "alpha")
    seen.session(2, "beta")
    told = [told async for told in seen.desk.history(Watching(about="agent-a"), 0.0)]
    assert [one.event.view and one.event.view.record.session_id for one in told] == ["alpha", None]
    told = [told async for told in seen.desk.history(Watching(about="node2/agent-b"), 0.0)]
    assert [one.event.op for one in told] == [Op.ADDED, Op.COMPLETE]


async def test_a_history_begins_when_asked_to_and_ends_where_a_watch_can_go_on(seen):
    seen.session(1, "alpha")
    seen.clock.now_s += 100
    seen.session(1, "beta")
    since_s = seen.clock.now_s - 50
    told = [told async for told in seen.desk.history(Watching(kinds=("session",)), since_s)]
    assert [one.event.op for one in told] == [Op.ADDED, Op.COMPLETE]
    assert seen.desk.log.seq_at(told[-1].position) == seen.desk.log.last


async def test_costs_are_told_at_most_once_a_second_and_as_totals(seen):
    watcher = Watcher(kinds=("cost",))
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        tasks.create_task(watcher.read(seen.desk))
        await asyncio.sleep(0)
        for tokens in range(1, 50):
            seen.spend(1, "alpha", tokens)
            seen.desk.settle()
            await asyncio.sleep(0)
        seen.settle()
        seen.desk.close()
    totals = [event.view.usage.total for event in watcher.told if event.view]
    assert totals == [1, 49]


class Looks:
    """Counts rows that are read, added up or priced; whoever may pause does so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, prices_alone: bool = False) -> None:
        self.count = 0
        self.begun = asyncio.Event()
        monkeypatch.setattr(pieces, "PIECE_S", 0.0)
        rows = () if prices_alone else ((Rated, "kind"), (spending, "weight_of"))
        for place, name in ((OnePrice, "rates"), *rows):
            monkeypatch.setattr(place, name, self._counted(getattr(place, name)))

    def _counted(self, call):
        def counted(*asked):
            self.count += 1
            self.begun.set()
            return call(*asked)

        return counted

    async def most_while(self, doing) -> int:
        """Return how many there are at most between two turns of another task."""
        most, task = 0, asyncio.ensure_future(doing)
        while not task.done():
            before = self.count
            await asyncio.sleep(0)
            most = max(most, self.count - before)
        await task
        return most


async def history_of(desk: WatchDesk) -> list:
    return [told async for told in desk.history(Watching(), 0.0)]


@pytest.fixture
async def rich(seen) -> Desk:
    """A mesh in which 50 sessions have spent."""
    for number in range(50):
        seen.session(1, f"s{number}")
        for slot in range(SLOTS):
            seen.spend(1, f"s{number}", 1, slot=slot)
    return seen


async def test_others_have_turns_while_all_that_was_spent_is_added_up(rich, monkeypatch):
    looks = Looks(monkeypatch)
    for _ in range(2):  # when nothing was told of, and when all of it was
        most = await looks.most_while(Watcher(kinds=("cost",)).catch_up(rich.desk))
        assert 0 < most <= 2 * (ROWS_AT_ONCE + SLOTS)  # added up, and priced


async def test_of_very_many_made_up_models_few_prices_are_looked_for_at_once(seen, monkeypatch):
    for number in range(60):
        seen.spend(1, "alpha", 1, f"made-up-{number}", slot=number)
    looks = Looks(monkeypatch, prices_alone=True)
    watcher = Watcher(kinds=("cost",))
    assert 0 < await looks.most_while(watcher.catch_up(seen.desk)) <= ROWS_AT_ONCE // PRICE_ROWS + 1
    monkeypatch.setattr(OnePrice, "source_text", lambda _self: "of today")
    assert await looks.most_while(watcher.catch_up(seen.desk)) == 1


async def test_a_history_adds_up_in_pieces_and_only_what_may_have_changed(rich, monkeypatch):
    looks = Looks(monkeypatch)
    assert 0 < await looks.most_while(history_of(rich.desk)) <= 2 * (ROWS_AT_ONCE + SLOTS)
    rich.spend(1, "s7", 5)
    looks.count = 0
    told = await history_of(rich.desk)
    assert [(one.event.kind, one.event.view.usage.total) for one in told[-3:-1]] == [
        (Kind.COST, SLOTS + 4),
        (Kind.SESSION, SLOTS + 4),
    ]
    assert looks.count <= 3 * SLOTS
    assert not rich.changes.spending.held


async def test_who_leaves_while_costs_are_worked_out_leaves_that_to_the_next(rich, monkeypatch):
    looks = Looks(monkeypatch)
    first, second = Watcher(kinds=("cost",)), Watcher(kinds=("cost",))
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        leaves = tasks.create_task(first.catch_up(rich.desk))
        stays = tasks.create_task(second.catch_up(rich.desk))
        past = tasks.create_task(history_of(rich.desk))
        await looks.begun.wait()
        leaves.cancel()
        await asyncio.wait([stays, past])
    assert first.told == []
    assert sum(view.usage.total for view in second.model.values()) == 50 * SLOTS
    assert not rich.changes.spending.held


async def test_who_watches_members_has_no_costs_worked_out(rich, monkeypatch):
    looks = Looks(monkeypatch)
    await Watcher(kinds=("node",)).catch_up(rich.desk)
    assert looks.count == 0


@pytest.mark.property
@settings(max_examples=100)
@given(
    st.lists(st.one_of(ACTS, st.just(("away",)), st.just(("back",))), max_size=30),
    st.sampled_from([5, 20, 10_000]),
)
def test_a_snapshot_and_what_follows_always_add_up_to_what_is_seen_afresh(acts, kept):
    async def play() -> None:
        seen, watcher, here = await Desk().begun(), Watcher(), True
        for what in acts:
            if what == ("away",):
                here = False
            elif what == ("back",):
                here = True
            elif what[0] not in {"follow", "stop", "begin_to_follow", "step"}:
                act(seen, what)
            if here:
                await watcher.catch_up(seen.desk)
        await watcher.catch_up(seen.desk)
        seen.settle()
        await watcher.catch_up(seen.desk)
        model = {i: view for i, view in watcher.model.items() if i[0] is not Kind.COST}
        assert model == seen.afresh()
        costs = [view for i, view in watcher.model.items() if i[0] is Kind.COST]
        rows = seen.mesh.tables.ledger()
        assert sum(one.usage.total for one in costs) == sum(
            slot.usage.total for _, (_, slot) in rows
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(events, "EVENTS_MAX", kept)
        asyncio.run(play())


async def test_a_clock_that_is_weeks_ahead_for_a_moment_lets_go_of_no_event(seen):
    seen.session(1, "alpha")
    seen.settle()
    seen.clock.now_s += SETTLED_S
    assert seen.desk.log.get(1)
    seen.clock.ahead_s = 2 * events.KEPT_S
    seen.session(1, "beta")
    seen.settle()
    seen.clock.ahead_s = 0.0
    seen.clock.now_s += SETTLED_S - COSTS_S - 1
    seen.session(1, "gamma")
    seen.settle()
    assert seen.desk.log.get(1)
    seen.clock.now_s += events.KEPT_S
    seen.session(1, "delta")
    seen.settle()
    assert seen.desk.log.get(1) is None


async def test_who_stops_while_looking_around_tells_of_each_member_once_and_keeps_it(monkeypatch):
    monkeypatch.setattr(watching, "LOOKED_AT_ONCE", 1)
    seen, given = Desk(), []
    seen.desk.on_events = given.extend
    first, *others = origins = seen.mesh.tables.origins()
    seen.desk.remember(dict.fromkeys(origins, MemberState.LEFT))
    looking = asyncio.ensure_future(seen.desk.begin(origins, resumed=True))
    await asyncio.sleep(0)  # it has looked at the first
    seen.desk.hold_states(origins)
    await looking
    state = seen.mesh.liveness.state(first)
    told = [(one.view.node_id, one.view.state) for one in given if one.kind is Kind.NODE]
    assert told == [(first, state)]
    assert seen.changes.states() == {first: state} | dict.fromkeys(others, MemberState.LEFT)
