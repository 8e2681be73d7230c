"""Streams of a node that says that it lives, and of one that does not say so any more.

Invariant: only a node that has said so, as older ones never do, is taken to be silent; the time in
which nobody asks for more, as behind a pager, does not count.
"""

from __future__ import annotations

from threading import Event, Thread
from typing import TYPE_CHECKING, Protocol, TypeVar

import grpc

from meshnode.client.connection.silence import explained, pid_of
from meshnode.client.errors import SilentNodeError, error_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from meshnode.client.home import Home

LOOK_S = 3.0  # between two looks whether anything has come; what lives says so as often
SILENT_S = 15.0  # without a pulse or anything else; then the node does not answer

Answer_co = TypeVar("Answer_co", covariant=True)


class Call(Protocol[Answer_co]):
    """A call of gRPC that streams."""

    def __iter__(self) -> Iterator[Answer_co]:
        """Return what comes."""

    def cancel(self) -> object:
        """End it."""


class Pulses:
    """What is known of the node of a home: whether it says that it lives."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._are_known = False

    def heard(
        self, call: Call[Answer_co], is_pulse: Callable[[Answer_co], bool]
    ) -> Iterator[Answer_co]:
        """Yield what is more than a pulse; raises SilentNodeError where they cease, MeshError."""
        silence = _Silence(call)
        if self._are_known:
            silence.listen()
        answers = iter(call)
        try:
            while (answer := silence.before(answers)) is not None:
                if is_pulse(answer):
                    self._are_known = True
                    silence.listen()
                else:
                    yield answer
        except grpc.RpcError as failure:
            if silence.is_too_long:
                raise SilentNodeError(pid_of(self._home), SILENT_S) from failure
            raise explained(error_from(failure), self._home) from failure
        finally:
            silence.end()


class _Silence:
    """Ends a call in which nothing comes for SILENT_S though it is waited for."""

    def __init__(self, call: Call[object]) -> None:
        self._call = call
        self._heard = 0
        self._waits = self._listens = self.is_too_long = False
        self._over = Event()

    def listen(self) -> None:
        """Begin, once."""
        if not self._listens:
            self._listens = True
            Thread(target=self._listen, name="silence", daemon=True).start()

    def before(self, answers: Iterator[Answer_co]) -> Answer_co | None:
        """Wait for the next answer; None: there is no more."""
        self._heard += 1
        self._waits = True
        try:
            return next(answers, None)
        finally:
            self._waits = False

    def end(self) -> None:
        """Take note that nobody waits any more."""
        self._over.set()

    def _listen(self) -> None:
        heard, looks = 0, 0
        while not self._over.wait(LOOK_S):
            looks = looks + 1 if self._waits and heard == self._heard else 0
            heard = self._heard
            if looks * LOOK_S >= SILENT_S:
                self.is_too_long = True
                self._call.cancel()
                return
