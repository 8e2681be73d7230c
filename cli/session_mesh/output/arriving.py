"""What a thread reads ahead, so that whoever shows it can look at other things meanwhile.

Invariant: every event or piece of output is handed out once and in order, and then what ended the
stream.
"""

import queue
import threading
from collections.abc import Iterator
from typing import Generic, TypeVar

QUEUE_MAX = 1000  # events; then the stream waits for us, and its node says so when that is too much

One = TypeVar("One")


class Arriving(Generic[One]):
    """A stream that is waited for no longer than one likes."""

    def __init__(self, events: Iterator[One], queue_max: int = QUEUE_MAX) -> None:
        self._queue: queue.Queue[One | BaseException] = queue.Queue(queue_max)
        threading.Thread(target=self._read, args=(events,), daemon=True).start()

    def next(self, timeout_s: float | None = None) -> One | None:
        """Return the next event, or None after so long without one.

        Raises what ended the stream, EOFError for its end.
        """
        try:
            one = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(one, BaseException):
            raise one
        return one

    def _read(self, events: Iterator[One]) -> None:
        try:
            for event in events:
                self._queue.put(event)
            self._queue.put(EOFError())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._queue.put(error)
