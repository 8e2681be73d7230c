"""The node's own log: JSON lines in a file that cannot grow without bound, warnings on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import TextIOWrapper
    from pathlib import Path

LOG_BYTES_MAX = 4 << 20  # then the file is renamed to .1, one old one being kept
TEXT_CHARS_MAX = 4_000  # of a message or a field; longer ones are cut
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


class LogFile(RotatingFileHandler):
    """The file, its user's alone; what a disk without room does not take is lost, and said once."""

    def _open(self) -> TextIOWrapper:
        """Open the file, made for its user alone: it names sessions and who commanded them."""
        made = os.open(self.baseFilename, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)
        return os.fdopen(made, "a", encoding="utf-8")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - named by logging
        """Pass over what the disk refused; the node's alarms say that it does."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def start_logging(path: Path, *, on_terminal: bool) -> None:
    """Send the node's log to a file, and what people should see to stderr."""
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    file = LogFile(path, maxBytes=LOG_BYTES_MAX, backupCount=1, delay=True)
    file.setFormatter(JsonFormatter())
    logger.addHandler(file)
    if on_terminal:
        screen = logging.StreamHandler(sys.stderr)
        screen.setFormatter(Plain())
        screen.setLevel(logging.WARNING)
        logger.addHandler(screen)
