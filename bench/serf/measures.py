"""What is measured, alike on all sides: joining, doing nothing, news, crashes, freezes.

A flood has news alone. Whoever is measured together takes turns at them, so that a machine that is
slow today is slow for all of them.
"""

from __future__ import annotations

import signal
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

import psutil
from report import Figure
from serf.board import ALIVE, LOST, NEWS, READY, STORED, TOLD_LOST
from serf.flood import Flood
from serf.side import wait
from serf.theirs import Serf

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from serf.side import Membership, Side

ITEMS = 30
TURN = 10  # so many of one side, then of the next
CRASHES = 5
FREEZES = 5
IDLE_S = 30.0
SETTLE_S = 3.0
CALM_S = 0.4  # between two items, at most: serf gossips every 0.2 s, so the phase must vary
NEWS_MEDIAN_LIMIT_MS = 15.0
NEWS_LAST_LIMIT_MS = 60.0
CRASH_LIMIT_S = 1.5
FREEZE_LIMIT_S = 4.5


class Arrivals(NamedTuple):
    """When one item was where, in ms; `own` and `stored` are by the nodes' own clocks."""

    after_request: list[float]
    after_answer: list[float]
    own: list[float]
    stored: float | None


def measure(sides: Sequence[Side], chance: random.Random) -> list[list[Figure]]:
    """Put sides through all they can: what members notice of each other, and news in turns."""
    figures: list[list[Figure]] = []
    for side in sides:
        if isinstance(side, Flood):
            _start(side)
            figures.append([])
        else:
            figures.append(_join(side) + _idle(side))
    for found, news in zip(figures, _news(sides, chance), strict=True):
        found.extend(news)
    for side in sides:
        if isinstance(side, Flood):
            side.close()
    for side, found in zip(sides, figures, strict=True):
        if not isinstance(side, Flood):
            found.extend(_losses(side, chance, CRASHES, _crash, ("killed", CRASH_LIMIT_S)))
            found.extend(_losses(side, chance, FREEZES, _freeze, ("frozen", FREEZE_LIMIT_S)))
    return figures


def _start(side: Side) -> None:
    for name in side.names:
        side.start(name)
    for name in side.names:
        wait(lambda name=name: side.board.first(READY, name), f"{name} to be ready", side)
    time.sleep(SETTLE_S)


def _join(side: Membership) -> list[Figure]:
    began_s = time.perf_counter()
    first, *others = side.names
    side.start(first)
    wait(lambda: side.board.first(READY, first), f"{first} to be ready")
    for name in others:
        side.start(name)
    started_s = time.perf_counter()
    wait(lambda: _converged(side), "all to list all", side)
    together_s = max(n.at_s for n in side.board.notices if n.what == ALIVE)
    ready_s = max(n.at_s for n in side.board.notices if n.what == READY)
    _check_lists(side)
    return [
        Figure("all list all, after the first start", together_s - began_s, "s"),
        Figure("all list all, after the last start", together_s - started_s, "s"),
        Figure("all list all, after the last was ready", max(0.0, together_s - ready_s), "s"),
    ]


def _idle(side: Membership) -> list[Figure]:
    time.sleep(SETTLE_S)
    processes = [psutil.Process(process.pid) for process in side.processes.values()]
    before_s, begun_s = sum(map(_cpu_s, processes)), time.perf_counter()
    time.sleep(IDLE_S)
    spent_s = sum(map(_cpu_s, processes)) - before_s
    percent = spent_s / (time.perf_counter() - begun_s) / len(processes) * 100
    memory = [process.memory_full_info() for process in processes]
    return [
        Figure("idle: processor, mean", percent, "%"),
        Figure("idle: resident, mean", statistics.mean(m.rss for m in memory) / 2**20, "MiB"),
        Figure("idle: private, mean", statistics.mean(m.uss for m in memory) / 2**20, "MiB"),
    ]


def _news(sides: Sequence[Side], chance: random.Random) -> list[list[Figure]]:
    owners = [chance.choice(sides[0].names) for _ in range(ITEMS)]
    arrived: list[list[Arrivals]] = [[] for _ in sides]
    for first in range(0, ITEMS, TURN):
        for side, found in zip(sides, arrived, strict=True):
            turn = range(first, first + TURN)
            found += [_one_item(side, owners[number], number) for number in turn]
    return [_figures_of(found) for found in arrived]


def _figures_of(arrived: Sequence[Arrivals]) -> list[Figure]:
    sent, returned, own, stored = zip(*arrived, strict=True)
    figures = [
        *_news_figures("news, from request", sent, NEWS_MEDIAN_LIMIT_MS, NEWS_LAST_LIMIT_MS),
        *_news_figures("news, from answer", returned),
    ]
    if None not in stored:
        median_ms = statistics.median(stored)
        figures.append(Figure("of which request to the owner's disk, p50", median_ms, "ms"))
    if own != sent:  # serf tells no instants of its own
        figures += _news_figures("news, from request, by nodes' own clocks", own)
    return figures


def _one_item(side: Side, owner: str, number: int) -> Arrivals:
    time.sleep(CALM_S / 2 + CALM_S / 2 * (number % 7) / 7)
    item = side.publish(owner, number)
    others = set(side.names) - {owner}
    wait(lambda: others <= side.board.first(NEWS, item.about).keys(), f"{item.about}", side)
    heard = side.board.first(NEWS, item.about)
    notices = [heard[name] for name in others]
    stored = side.board.first(STORED, item.about).get(owner)
    return Arrivals(
        [(notice.at_s - item.sent_s) * 1000 for notice in notices],
        [(notice.at_s - item.returned_s) * 1000 for notice in notices],
        [(notice.own_at_s - item.sent_s) * 1000 for notice in notices],
        None if stored is None else (stored.own_at_s - item.sent_s) * 1000,
    )


def _news_figures(
    what: str,
    arrived_ms: Sequence[Sequence[float]],
    median_limit_ms: float | None = None,
    last_limit_ms: float | None = None,
) -> list[Figure]:
    every = [at_ms for item in arrived_ms for at_ms in item]
    lasts = [max(item) for item in arrived_ms]
    return [
        Figure(f"{what}: p50 of nodes", statistics.median(every), "ms", median_limit_ms),
        Figure(f"{what}: last node, p50", statistics.median(lasts), "ms"),
        Figure(f"{what}: last node, worst", max(lasts), "ms", last_limit_ms),
    ]


def _losses(
    side: Membership,
    chance: random.Random,
    runs: int,
    lose: Callable[[Membership, str], Callable[[], None]],
    named: tuple[str, float],
) -> list[Figure]:
    what, limit_s = named
    firsts: list[float] = []
    lasts: list[float] = []
    told: list[float] = []
    for _ in range(runs):
        victim = chance.choice(side.names[1:])  # the first is whom the others join through
        others = set(side.names) - {victim}
        time.sleep(SETTLE_S + chance.random())
        lost_s = time.perf_counter()
        regain = lose(side, victim)
        _wait_for(side, others, LOST, victim, lost_s)
        after = [n.at_s - lost_s for n in side.board.first(LOST, victim, lost_s).values()]
        firsts.append(min(after))
        lasts.append(max(after))
        if isinstance(side, Serf):
            _wait_for(side, others, TOLD_LOST, victim, lost_s)
            heard = side.board.first(TOLD_LOST, victim, lost_s)
            told.append(max(n.at_s for n in heard.values()) - lost_s)
        regain()
        wait(lambda: _converged(side), f"{victim} to be back", side)
    figures = [
        Figure(f"{what}: first to notice, p50 of {runs}", statistics.median(firsts), "s"),
        Figure(f"{what}: last to notice, p50 of {runs}", statistics.median(lasts), "s"),
        Figure(f"{what}: last to notice, worst", max(lasts), "s", limit_s),
    ]
    if told:
        figures.append(Figure(f"{what}: last event told, p50", statistics.median(told), "s"))
    return figures


def _crash(side: Membership, victim: str) -> Callable[[], None]:
    process = side.processes[victim]
    process.kill()

    def regain() -> None:
        process.wait()
        side.start(victim)

    return regain


def _freeze(side: Membership, victim: str) -> Callable[[], None]:
    process = side.processes[victim]
    process.send_signal(signal.SIGSTOP)
    return lambda: process.send_signal(signal.SIGCONT)


def _wait_for(side: Side, watchers: set[str], what: str, about: str, since_s: float) -> None:
    wait(
        lambda: watchers <= side.board.first(what, about, since_s).keys(),
        f"all to notice {about}",
        side,
    )


def _converged(side: Membership) -> bool:
    everyone = set(side.names)
    return all(side.board.views.get(name) == everyone for name in side.names)


def _check_lists(side: Membership) -> None:
    """What was heard must be what members answer when asked."""
    for name in side.names:
        listed = side.listed(name)
        if listed != set(side.names):
            raise SystemExit(f"{name} told us of {len(side.names)} and lists {len(listed)}")


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system
