"""When a machine has moved, and when its interfaces only flicker."""

import psutil
import pytest

from meshnode.node.presence.listeners import Listeners
from meshnode.node.presence.moving import CHANGES_BURST, CHANGES_EVERY_S, LOOK_S, SETTLE_S, watch

HOME, OFFICE = ("192.0.2.1",), ("198.51.100.1",)


class OverError(Exception):
    """The script of a test is at its end."""


async def moves(*looks: tuple[str, ...] | OSError) -> tuple[list[float], list[float]]:
    """Show these interfaces one look after the other; returns when it has moved, and all waits."""
    script, moved_at_s, waits = iter(looks), [], []
    last: list[tuple[str, ...]] = []

    def hosts() -> tuple[str, ...]:
        shown = next(script, OverError())
        if isinstance(shown, Exception):
            raise shown
        last[:] = [shown]
        return shown

    async def moved(hosts: tuple[str, ...]) -> None:
        assert [hosts] == last
        moved_at_s.append(sum(waits))

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    with pytest.raises(OverError):
        await watch(moved, lambda: sum(waits), hosts, wait)
    return moved_at_s, waits


async def test_a_change_is_told_once_a_second_look_has_seen_it_too():
    moved_at_s, _ = await moves(HOME, HOME, OFFICE, OFFICE, OFFICE, OFFICE)
    assert moved_at_s == [2 * LOOK_S + SETTLE_S]


async def test_an_address_that_goes_for_a_second_has_not_moved_anybody():
    assert (await moves(HOME, ("127.0.0.1",), HOME, HOME, OFFICE, HOME))[0] == []


async def test_another_order_is_no_change():
    assert (await moves(HOME + OFFICE, OFFICE + HOME, OFFICE + HOME, OFFICE + HOME))[0] == []


async def test_there_and_back_is_two_changes():
    assert len((await moves(HOME, OFFICE, OFFICE, HOME, HOME))[0]) == 2


async def test_interfaces_that_cannot_be_seen_are_as_before():
    busy = OSError(24, "Too many open files")
    assert (await moves(HOME, busy, HOME, busy, HOME))[0] == []


async def test_interfaces_that_come_and_go_all_the_time_are_told_of_now_and_then():
    cycle = (OFFICE, OFFICE, HOME, HOME)
    moved_at_s, waits = await moves(HOME, *cycle * 100)
    assert len(moved_at_s) <= CHANGES_BURST + sum(waits) / CHANGES_EVERY_S + 1
    assert len(moved_at_s) > CHANGES_BURST


async def test_a_node_listens_where_it_was_seen_to_be_and_does_not_look_once_more(monkeypatch):
    listeners = Listeners(None, "0.0.0.0:7707", None)

    def busy() -> dict:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(psutil, "net_if_stats", busy)
    assert listeners.move(OFFICE)
    assert listeners.members.addresses == ("198.51.100.1:7707",)
    assert not listeners.move(OFFICE)


async def test_a_node_that_was_told_where_it_is_stays_there():
    for listen, advertise in (("192.0.2.1:7707", None), ("0.0.0.0:7707", "192.0.2.1:7707")):
        listeners = Listeners(None, listen, advertise)
        assert not listeners.move(OFFICE)
        assert listeners.members.hosts == HOME
