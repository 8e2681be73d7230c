"""The node's own log: JSON lines in a file that cannot grow without bound, warnings on stderr."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LOG_BYTES_MAX = 4 << 20  # then the file is renamed to .1, one old one being kept
TEXT_CHARS_MAX = 4_000  # of a message or a field; longer ones are cut
LATER_S = 0.2  # from a line to the write that it shares with others
WAITING_MAX = 1000  # lines that wait; one more, and all are written at once
LOGGER = "session_mesh"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: at, level, event, and whatever `extra` was given."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as JSON; an exception becomes a field."""
        value: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix("session_mesh."),
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            value |= fields
        if record.exc_info:
            value["exception"] = self.formatException(record.exc_info)[-TEXT_CHARS_MAX:]
        cut = {
            name: said[:TEXT_CHARS_MAX] if isinstance(said, str) else said
            for name, said in value.items()
        }
        return json.dumps(cut, default=str)


class Plain(logging.Formatter):
    """One sentence a line, for people; control characters of remote origin are escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record as a sentence."""
        text = f"{record.levelname.lower()}: {record.getMessage()}"
        return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class LogFile(logging.Handler):
    """The file, its user's alone; what a disk without room does not take is lost.

    Lines wait for LATER_S, so that nobody who waits for an answer waits for its line too, and are
    then written together. A warning takes along what waits, and so does the end of the process;
    whoever kills it may lose what was told of the last LATER_S.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._waiting: list[logging.LogRecord] = []
        self._loop: asyncio.AbstractEventLoop | None = None  # that will write what waits
        self._fd = -1
        self._size = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Take a record; write it at once if that must be."""
        self._waiting.append(record)
        urgent = record.levelno >= logging.WARNING or len(self._waiting) >= WAITING_MAX
        if urgent or not self._written_later():
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        self.acquire()
        try:
            records, self._waiting, self._loop = self._waiting, [], None
            self._write(self._lines_of(records))
        except OSError:  # the node's alarms say that the disk takes nothing
            return
        finally:
            self.release()

    def close(self) -> None:
        """Write what waits, and close the file."""
        self.flush()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()

    def _written_later(self) -> bool:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # before a node's loop runs, after it, and beside it
            return False
        if self._loop is not loop:
            self._loop = loop
            loop.call_later(LATER_S, self.flush)
        return True

    def _lines_of(self, records: list[logging.LogRecord]) -> list[str]:
        lines = []
        for record in records:
            try:
                lines.append(self.format(record) + "\n")
            except Exception:  # noqa: BLE001 - as every handler: one bad line costs no other
                self.handleError(record)
        return lines

    def _write(self, lines: list[str]) -> None:
        together: list[bytes] = []
        for line in lines:
            packed = line.encode("utf-8", "backslashreplace")
            if self._fd < 0:
                self._open()
            if self._size and self._size + len(packed) > LOG_BYTES_MAX:
                self._put(together)
                self._rotate()
            together.append(packed)
            self._size += len(packed)
        self._put(together)

    def _put(self, together: list[bytes]) -> None:
        left = b"".join(together)
        together.clear()
        while left:
            left = left[os.write(self._fd, left) :]

    def _open(self) -> None:
        """Open the file, made for its user alone: it names sessions and who commanded them."""
        flags = os.O_APPEND | os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC
        self._fd = os.open(self._path, flags, 0o600)
        self._size = os.fstat(self._fd).st_size

    def _rotate(self) -> None:
        os.close(self._fd)
        self._fd = -1
        self._path.replace(f"{self._path}.1")
        self._open()


def start_logging(path: Path, *, on_terminal: bool) -> None:
    """Send the node's log to a file, and what people should see to stderr."""
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    file = LogFile(path)
    file.setFormatter(JsonFormatter())
    logger.addHandler(file)
    if on_terminal:
        screen = logging.StreamHandler(sys.stderr)
        screen.setFormatter(Plain())
        screen.setLevel(logging.WARNING)
        logger.addHandler(screen)
