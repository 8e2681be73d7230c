"""A device that joins another mesh, and dies or finds its disk full in the midst of it.

Called as `python cut_short.py FOLDER WAY POINT ...`: for each point one child lets the home
FOLDER/POINT follow the invite in FOLDER/invite, and is given the answer in FOLDER/answer. Before
the POINTth change of a file (way `dies`: or SQLite statement) it ends by SIGKILL (`dies`), or that
and all changes after it fail as on a full disk (`full`). It prints a JSON list a child: its point,
how it ended, and in which words it was refused. Exit code 3: it had joined before that point.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
import sys
from itertools import count
from pathlib import Path

from meshnode.client.home import Home
from meshnode.core.errors import MeshError
from meshnode.node.homes import joining
from meshnode.v1 import enrolment_service_pb2 as pb

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGES = {"os.rename", "os.remove", "os.link", "os.mkdir"}
DONE = 3
_connect = sqlite3.connect


def main(folder: str, way: str, *points: str) -> None:
    """Run one child a point, one after the other."""
    for point in points:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os._exit(_child(Path(folder), way, int(point), writing))
        os.close(writing)
        with os.fdopen(reading) as told:
            said = told.read()
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(json.dumps([int(point), os.waitstatus_to_exitcode(status), said]) + "\n")


class Cut:
    """Counts what changes on the disk, and lets it end at a point."""

    def __init__(self, way: str, point: int) -> None:
        self._way, self._point, self._changes = way, point, count(1)

    def begin(self) -> None:
        if self._way == "dies":
            sqlite3.connect = self._connect
        sys.addaudithook(self._watch)

    def _watch(self, event: str, args: tuple) -> None:
        if event in CHANGES or (event == "open" and isinstance(args[2], int) and args[2] & WRITING):
            self._change()

    def _connect(self, *args, **kwargs) -> sqlite3.Connection:
        connection = _connect(*args, **kwargs)
        connection.set_trace_callback(lambda _statement: self._change())
        return connection

    def _change(self) -> None:
        if next(self._changes) < self._point:
            return
        if self._way == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _child(folder: Path, way: str, point: int, told: int) -> int:
    home, text = Home(folder / str(point)), (folder / "invite").read_text()
    answer = pb.JoinResponse.FromString((folder / "answer").read_bytes())
    joining.ask_to_join = lambda *_: ("127.0.0.1:7708", answer)
    Cut(way, point).begin()
    try:
        joining.join(home, text)
    except MeshError as error:
        os.write(told, f"{error.message} ({error.hint})".encode())
        return error.exit_code
    return DONE


if __name__ == "__main__":
    main(*sys.argv[1:])
