"""Alarms: raised once, cleared once, bounded."""

import pytest

from meshnode.app.audit import alarms as module
from meshnode.app.audit.alarms import Alarm, Alarms
from meshnode.core.errors import RefusedError


class Heard:
    """Alarms, what was said about them, and a clock."""

    def __init__(self) -> None:
        self.said: list[tuple[str, bool]] = []
        self.now_s = 100.0
        self.alarms = Alarms(
            lambda: self.now_s, lambda alarm, raised: self.said.append((alarm.id, raised))
        )


@pytest.fixture
def heard() -> Heard:
    return Heard()


def ids(alarms: Alarms) -> list[str]:
    return [alarm.id for alarm in alarms.standing()]


def test_an_alarm_that_stands_is_told_once_and_keeps_its_beginning(heard: Heard):
    heard.alarms.sound(Alarm("disk", "full", "free some"))
    heard.now_s = 200.0
    heard.alarms.sound(Alarm("disk", "still full", "free some"))
    (alarm,) = heard.alarms.standing()
    assert (alarm.detail, alarm.since_s) == ("still full", 100.0)
    assert heard.said == [("disk", True)]


def test_an_alarm_that_is_over_is_told_once_and_may_come_again(heard: Heard):
    heard.alarms.sound(Alarm("disk", "full", "free some"))
    for _ in range(2):
        heard.alarms.clear("disk")
    heard.alarms.sound(Alarm("disk", "full", "free some"))
    assert heard.said == [("disk", True), ("disk", False), ("disk", True)]


def test_only_an_alarm_that_stops_writes_refuses_them_and_says_what_to_do(heard: Heard):
    stopped = []
    heard.alarms.on_stopped = stopped.append
    heard.alarms.sound(Alarm("feed:x", "damaged", "wait"))
    heard.alarms.check_writable()
    heard.alarms.sound(Alarm("disk", "the disk is full", "free some", stops_writes=True))
    with pytest.raises(RefusedError, match="the disk is full") as refused:
        heard.alarms.check_writable()
    assert refused.value.hint == "free some"
    assert [alarm.id for alarm in stopped] == ["disk"]
    heard.alarms.clear("disk")
    heard.alarms.check_writable()


def test_of_too_many_alarms_the_oldest_goes_that_does_not_stop_writes(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "ALARMS_MAX", 3)
    heard.alarms.sound(Alarm("disk", "full", "free some", stops_writes=True))
    for number in range(5):
        heard.alarms.sound(Alarm(f"feed:{number}", "damaged", "wait"))
    assert ids(heard.alarms) == ["disk", "feed:3", "feed:4"]
    assert [name for name, raised in heard.said if not raised] == ["feed:0", "feed:1", "feed:2"]
