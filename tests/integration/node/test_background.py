"""Tasks of a node that fail though they never should: told, and the others go on."""

import asyncio
import json
import logging

import pytest
from integration.node.test_failing_disk import a_change_that_sqlite_cannot_hold
from integration.rpc.fleet import WAIT_S

from meshnode.app.audit.alarms import Alarms
from meshnode.core.errors import RefusedError, UnreachableError
from meshnode.node.background import UNHANDLED_BURST, Background, log_unhandled
from meshnode.telemetry.logs import JsonFormatter


class Lines(logging.Handler):
    """The log of a node, line by line."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lines: list[dict[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


@pytest.fixture
def log():
    lines, logger = Lines(), logging.getLogger("session_mesh.node")
    logger.addHandler(lines)
    yield lines
    logger.removeHandler(lines)


@pytest.fixture
def alarms() -> Alarms:
    return Alarms(lambda: 1.0, lambda _alarm, _raised: None)


async def fail(error: Exception) -> None:
    raise error


async def run(alarms: Alarms, begin) -> None:
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        begin(Background(tasks, alarms))


async def test_a_task_that_breaks_is_an_alarm_with_one_traceback(alarms, log):
    await run(alarms, lambda work: [work.spawn(fail(KeyError("x"))) for _ in range(3)])
    (alarm,) = alarms.standing()
    assert (alarm.id, alarm.stops_writes) == ("fault:fail", False)
    assert alarm.fix.startswith("session-mesh down")
    assert ["KeyError" in line.get("exception", "") for line in log.lines] == [True]


async def test_a_task_that_is_refused_something_is_a_line_in_the_log(alarms, log):
    await run(alarms, lambda work: work.spawn(fail(UnreachableError("nobody is there"))))
    assert alarms.standing() == ()
    assert [line["message"] for line in log.lines] == ["a background task failed: nobody is there"]


async def test_a_task_that_is_to_run_for_ever_is_missed_whatever_ends_it(alarms):
    await run(alarms, lambda work: work.keep(fail(UnreachableError("nobody is there"))))
    (alarm,) = alarms.standing()
    assert "nobody is there" in alarm.detail


async def test_a_writer_that_has_ended_stops_writes(writers):
    writers.writer.put(a_change_that_sqlite_cannot_hold(), ours=True)
    await run(writers.alarms, lambda work: work.keep(writers.writer.run(), stops_writes=True))
    with pytest.raises(RefusedError, match=r"FeedWriter\.run, has ended"):
        writers.alarms.check_writable()


async def test_what_nobody_waits_for_is_in_the_log_and_a_flood_of_it_is_not(log):
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(log_unhandled())
    for _ in range(UNHANDLED_BURST + 20):
        loop.call_soon(int, "no number")
    done = asyncio.Event()
    loop.call_soon(done.set)
    await done.wait()
    assert len(log.lines) == UNHANDLED_BURST
    assert "no number" in log.lines[0]["exception"]
