"""Fuzzing by what is reached: an input that runs lines no other did, or ends otherwise, is kept.

Invariant: a run is a function of its seed, its corpus and how far its time reaches. What crashes is
kept in its smallest form, once for each place in our code where it broke.
"""

from __future__ import annotations

import signal
import sys
import traceback
import tracemalloc
from contextlib import contextmanager
from pathlib import Path
from random import Random
from time import process_time
from typing import TYPE_CHECKING, Any, NamedTuple

from fuzz import corpus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from fuzz.decoder import Decoder

HANGS_S = 5.0  # of CPU, for one input of a few kilobytes
MEMORY_BYTES_MAX = 64 << 20  # for one input, before it counts as a crash
MEASURED = 50  # one input in so many is weighed: tracemalloc makes all slower
SHRINK_TRIES = 400
OURS = str(Path(__file__).parents[2] / "meshnode")


class HangError(Exception):
    """An input took longer than HANGS_S."""


class MemoryUsedError(Exception):
    """An input took more than MEMORY_BYTES_MAX."""


class Crash(NamedTuple):
    """Where it broke, as file and line, and how."""

    place: str
    error: str


class Report(NamedTuple):
    """What a run over one decoder did."""

    runs: int
    cpu_s: float
    lines: int
    kept: int
    crashes: dict[Crash, bytes]


class Reach:
    """The lines of our code that inputs have reached, one step of a function to the next."""

    def __init__(self) -> None:
        self.known: set[tuple[int, int, int]] = set()
        self._now: set[tuple[int, int, int]] = set()

    @contextmanager
    def watched(self) -> Iterator[None]:
        self._now = set()
        before = sys.gettrace()
        sys.settrace(self._called)
        try:
            yield
        finally:
            sys.settrace(before)

    def is_news(self) -> bool:
        """Whether what ran just now reached something new; it is known from now on."""
        fresh = not self._now <= self.known
        self.known |= self._now
        return fresh

    def _called(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        if not frame.f_code.co_filename.startswith(OURS):
            return None
        code, last = id(frame.f_code), 0

        def step(frame: FrameType, event: str, arg: object) -> Any:
            nonlocal last
            if event == "line":
                self._now.add((code, last, frame.f_lineno))
                last = frame.f_lineno
            return step

        return step


def crash_of(decoder: Decoder, raw: bytes, *, weighed: bool = False) -> tuple[Crash | None, str]:
    """Run one input; returns what broke, or None and what came of it."""
    try:
        with _limited(weighed=weighed):
            return None, decoder.outcome(raw)
    except Exception as error:  # noqa: BLE001 - that there may be any is the point
        frames = traceback.extract_tb(error.__traceback__)
        ours = [one for one in frames if one.filename.startswith(OURS)] or frames
        place = f"{Path(ours[-1].filename).name}:{ours[-1].name}"
        return Crash(place, type(error).__name__), ""


@contextmanager
def _limited(*, weighed: bool) -> Iterator[None]:
    """Give an input its time and, weighed, its memory."""

    def hang(_number: int, _frame: object) -> None:
        raise HangError(f"more than {HANGS_S:g} s of CPU")

    before = signal.signal(signal.SIGVTALRM, hang)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANGS_S)
    if weighed:
        tracemalloc.start()
    try:
        yield
        if weighed and tracemalloc.get_traced_memory()[1] > MEMORY_BYTES_MAX:
            raise MemoryUsedError(f"more than {MEMORY_BYTES_MAX} bytes")
    finally:
        if weighed:
            tracemalloc.stop()
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def fuzz(name: str, decoder: Decoder, cpu_s: float, seed: int, *, keeping: bool = True) -> Report:
    """Mutate what is known for so many seconds of CPU; keeps what is new in the corpus."""
    rng, reach, began_s = Random(f"{name} {seed}"), Reach(), process_time()
    known = list(dict.fromkeys([*decoder.valid, *corpus.inputs_of(name)]))
    outcomes: set[str] = set()
    crashes: dict[Crash, bytes] = {}
    runs = 0
    kept = sum(corpus.keep(name, raw) for raw in decoder.valid if keeping)
    waiting = list(known)
    while waiting or process_time() - began_s < cpu_s:
        raw = waiting.pop(0) if waiting else _next(known, decoder, rng)
        runs += 1
        with reach.watched():
            crash, outcome = crash_of(decoder, raw)
        if crash is None and runs % MEASURED == 0:
            crash, outcome = crash_of(decoder, raw, weighed=True)
        news = reach.is_news() | (outcome not in outcomes and len(outcomes) < corpus.FILES_MAX)
        outcomes.add(outcome)
        if crash is not None and crash not in crashes:
            crashes[crash] = shrunk(decoder, raw, crash)
            if keeping:
                corpus.keep(name, crashes[crash], crashed=True)
        elif news and crash is None and raw not in known:
            known.append(raw)
            kept += keeping and corpus.keep(name, raw)
    return Report(runs, process_time() - began_s, len(reach.known), kept, crashes)


def _next(known: list[bytes], decoder: Decoder, rng: Random) -> bytes:
    if rng.random() < 0.02:
        return rng.randbytes(rng.randrange(200))
    return corpus.mutated(rng.choice(known), known, rng, packed=decoder.packed)


def shrunk(decoder: Decoder, raw: bytes, crash: Crash) -> bytes:
    """Leave out of an input whatever it crashes without, in pieces that get smaller."""
    tries, size = 0, max(len(raw) // 2, 1)
    while tries < SHRINK_TRIES:
        at, before = 0, len(raw)
        while at < len(raw) and tries < SHRINK_TRIES:
            shorter = raw[:at] + raw[at + size :]
            tries += 1
            if crash_of(decoder, shorter)[0] == crash:
                raw = shorter
            else:
                at += size
        if size == 1 and len(raw) == before:
            break
        size = max(size // 2, 1)
    return raw
