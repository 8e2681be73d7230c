"""The node's own log: JSON lines that stay lines, bounded in length and in number."""

import asyncio
import json
import logging

import pytest

from meshnode.telemetry import logs
from meshnode.telemetry.logs import TEXT_CHARS_MAX, JsonFormatter, LogFile, Plain, start_logging

NASTY = 'a\x1b[2J\r\n{"event": "forged"}\u202e\ud800'


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("session_mesh.audit", logging.INFO, "", 0, "%s", (message,), None)
    made.fields = fields
    return made


def test_words_of_others_neither_end_a_line_nor_reach_a_terminal_raw():
    line = JsonFormatter().format(record(NASTY, agent_id=NASTY))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["agent_id"] == NASTY
    assert Plain().format(record(NASTY)).isprintable()


def test_long_words_are_cut():
    long = "x" * (2 * TEXT_CHARS_MAX)
    said = json.loads(JsonFormatter().format(record(long, detail=long, count=5)))
    assert (len(said["message"]), len(said["detail"])) == (TEXT_CHARS_MAX, TEXT_CHARS_MAX)
    assert said["count"] == 5


@pytest.fixture
def logger():
    logger = logging.getLogger(logs.LOGGER)
    kept = logger.handlers, logger.level, logger.propagate
    logger.handlers = []
    yield logger
    for handler in logger.handlers:
        handler.close()
    logger.handlers, logger.level, logger.propagate = kept


def test_the_file_and_its_predecessor_are_all_there_ever_is(tmp_path, monkeypatch, logger):
    monkeypatch.setattr(logs, "LOG_BYTES_MAX", 4000)
    start_logging(tmp_path / "node.log", on_terminal=False)
    for number in range(200):
        logger.info("line %d", number, extra={"fields": {"event": "command_refused"}})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node.log", "node.log.1"]
    assert all(path.stat().st_size <= 4000 for path in tmp_path.iterdir())
    last = (tmp_path / "node.log").read_text().splitlines()[-1]
    assert json.loads(last)["message"] == "line 199"


def test_the_log_belongs_to_its_user_alone(tmp_path, logger):
    start_logging(tmp_path / "node.log", on_terminal=False)
    logger.info("begun")
    assert (tmp_path / "node.log").stat().st_mode & 0o077 == 0


async def test_lines_of_a_running_node_travel_together_and_a_warning_takes_them_along(
    tmp_path, logger
):
    start_logging(tmp_path / "node.log", on_terminal=False)
    logger.info("first")
    logger.info("second")
    assert not (tmp_path / "node.log").exists()
    logger.warning("third")
    lines = (tmp_path / "node.log").read_text().splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["first", "second", "third"]


async def test_what_waits_is_written_in_a_moment_and_by_the_end_at_the_latest(
    tmp_path, monkeypatch, logger
):
    start_logging(tmp_path / "node.log", on_terminal=False)
    [file] = logger.handlers
    written = asyncio.Event()
    with monkeypatch.context() as patched:
        patched.setattr(file, "flush", lambda: (LogFile.flush(file), written.set()))
        logger.info("soon")
        await written.wait()
    assert len((tmp_path / "node.log").read_text().splitlines()) == 1
    logger.info("last")
    logging.shutdown([lambda: file])
    assert len((tmp_path / "node.log").read_text().splitlines()) == 2
