"""An interrupt among many orders: no further one is given, and each target is told of."""

from threading import Event, Semaphore

import pytest

from meshnode.client.commands import fanning
from meshnode.client.commands.fanning import AT_ONCE, CutShortError, fan_out
from meshnode.client.targets.targets import Target

MANY = [Target(f"t{n}") for n in range(AT_ONCE + 1)]
AWAY = {"state": "unreachable", "agent_id": "a", "node_id": "n", "node_name": "berta"}


class UnderWay:
    """Orders that take until they are let go; Ctrl-C comes once so many of them are under way."""

    def __init__(self, count: int, interrupts: int = 1) -> None:
        self.begun = Semaphore(0)
        self.let_go = Event()
        self.count = count
        self.interrupts = interrupts

    def act(self, _target):
        self.begun.release()
        self.let_go.wait()
        return {"outcome": "applied"}

    def interrupt(self, _jobs):
        for _ in range(self.count):
            self.begun.acquire()
        raise KeyboardInterrupt

    def pool(self, whole):
        """A pool that lets them go once it is waited for, or is interrupted then."""
        under_way = self

        class Pool(whole):
            def shutdown(self, wait=True, *, cancel_futures=False):
                under_way.interrupts -= 1
                if under_way.interrupts > 0:
                    raise KeyboardInterrupt
                if wait:
                    under_way.let_go.set()
                super().shutdown(wait, cancel_futures=cancel_futures)

        return Pool


def interrupted(monkeypatch, under_way, targets, **options):
    monkeypatch.setattr(fanning, "ThreadPoolExecutor", under_way.pool(fanning.ThreadPoolExecutor))
    monkeypatch.setattr(fanning, "as_completed", under_way.interrupt)
    with pytest.raises(CutShortError) as told:
        fan_out(targets, under_way.act, named, **options)
    under_way.let_go.set()
    return told.value.results


def named(target):
    return dict.fromkeys(("session_id", "agent_id", "node_id", "node_name"), str(target))


def test_who_was_under_way_is_told_as_it_ended_and_the_rest_as_not_ordered(monkeypatch):
    results = interrupted(monkeypatch, UnderWay(AT_ONCE), MANY)
    assert [one["target"] for one in results] == [str(one) for one in MANY]
    assert [one["outcome"] for one in results] == ["applied"] * AT_ONCE + ["not_ordered"]
    assert results[-1]["exit_code"] == 130


def test_of_a_node_that_is_away_no_further_session_is_ordered(monkeypatch):
    sessions = [AWAY | {"session_id": f"s{n}"} for n in range(3)]
    results = interrupted(monkeypatch, UnderWay(1), sessions)
    assert [one["outcome"] for one in results] == ["applied", "not_ordered", "not_ordered"]


def test_a_second_interrupt_ends_the_wait_for_those_under_way(monkeypatch):
    results = interrupted(monkeypatch, UnderWay(2, interrupts=2), MANY, at_once=2)
    assert [one["outcome"] for one in results] == ["indeterminate"] * 2 + ["not_ordered"] * 15
