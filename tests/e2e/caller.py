"""Somebody at a terminal, for tests: what is typed, what is shown, and how it is left."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import termios
import time

from e2e.fleet import PATIENCE_S, PROGRAM, Node

SIZES = {"COLUMNS", "LINES"}


class Caller:
    """Somebody at a terminal, whose shell has started `run`, or another verb, or this script it."""

    def __init__(
        self,
        node: Node,
        *words: str,
        verb: str = "run",
        shell: str = "",
        **environment: str,
    ) -> None:
        self.master, self.slave = os.openpty()
        self.resize(100, 30)
        self.found = termios.tcgetattr(self.slave)
        self.shown = b""
        known = {k: v for k, v in node.environment.items() if k not in SIZES}  # of who runs tests
        self.process = subprocess.Popen(
            [*(["bash", "-c", shell] if shell else []), PROGRAM, verb, *words],
            env=known | {"TERM": "xterm"} | environment,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - as a shell does
        )

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def sees(self, text: bytes) -> bytes:
        """Wait until it is shown, and return what was before it."""
        give_up_at = time.monotonic() + PATIENCE_S
        while text not in self.shown:
            readable, _, _ = select.select([self.master], [], [], give_up_at - time.monotonic())
            assert readable, (text, self.shown)
            self.shown += os.read(self.master, 65536)
        before, _, self.shown = self.shown.partition(text)
        return before

    @property
    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def ends(self) -> int:
        code = self.process.wait(PATIENCE_S)
        assert termios.tcgetattr(self.slave) == self.found
        return code
