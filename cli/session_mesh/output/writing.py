"""The standard streams of a process, made such that they write all they are given, or fail.

Invariant: every write is buffered, or Python would not look at how much of it was taken; one that
would block is waited for, as long as a blocking one would last; what an interrupt comes upon is
written once.
"""

import os
import select
import sys
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import Any, TextIO


class Patient(BufferedWriter):
    """A buffer before what others may have made not to block, as programs like ssh do.

    Python's own code moves on in it: ours would be interrupted between the two, and write again.
    """

    def write(self, data: Any) -> int:  # noqa: ANN401 - any buffer, and 3.11 has no word for that
        """Take all of it, in bytes; raises OSError."""
        left = memoryview(data)
        while True:
            try:
                super().write(left)
            except BlockingIOError as error:
                left = left[error.characters_written :]
                self._wait()
            else:
                return len(data)

    def flush(self) -> None:
        """Write all that was taken; raises OSError."""
        while True:
            try:
                super().flush()
            except BlockingIOError:
                self._wait()
            else:
                return

    def _wait(self) -> None:
        watched = select.poll()
        watched.register(self, select.POLLOUT)
        watched.poll()


def mend_streams() -> None:
    """Replace stdout and stderr of this process by streams like that; no stream stays closed."""
    ways = {"stdin": ("r", os.O_RDONLY), "stdout": ("w", os.O_RDONLY), "stderr": ("w", os.O_WRONLY)}
    for name, (mode, how) in ways.items():
        if getattr(sys, name) is None:  # closed by who started us
            # Opened to be read, so that what is written there fails as on a stream that is closed.
            number = os.open(os.devnull, how)
            os.set_inheritable(number, True)  # noqa: FBT003 - os names no parameter; else a node's lock takes its place
            file = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115 - for as long as we run
            setattr(sys, name, file)
    sys.stdout, sys.stderr = _whole(sys.stdout), _whole(sys.stderr)


def _whole(stream: TextIO) -> TextIO:
    below = getattr(stream, "buffer", None)
    if not isinstance(below, BufferedWriter | FileIO):  # no file of the system
        return stream
    if isinstance(below, Patient):  # mended before
        return stream
    buffer = Patient(FileIO(stream.fileno(), "wb", closefd=False))
    # What complains is read while we run; without a buffer Python has none for lines either.
    at_lines = stream.isatty() or stream is sys.stderr
    return TextIOWrapper(buffer, stream.encoding, stream.errors, line_buffering=at_lines)
