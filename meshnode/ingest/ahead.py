"""Reading ahead: a second process reads a log that is new, or has grown by more than one piece.

Invariant: the readings are those that one process would make, in the same order, whatever becomes
of the second one: what it has not told by its end is read here. It changes nothing, it uses nothing
that it was born with but the reader and a pipe, and it ends when nobody takes what it tells.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
from contextlib import contextmanager, suppress
from itertools import chain
from typing import TYPE_CHECKING, NoReturn

import msgspec
from msgspec.structs import replace

from meshnode.core.ledger.charges import Charge
from meshnode.core.ledger.ledger import UsageRecord
from meshnode.ingest.reading import places_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from meshnode.ingest.reading import Reader, Reading

PIPE_BYTES = 1 << 20  # told and not taken yet; more is held by the second process
HELD_BYTES_MAX = 8 << 20  # then it waits
LENGTH_BYTES = 8  # before each piece that is told
CORES_MIN = 2
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(tuple[tuple[UsageRecord, ...], tuple[Charge, ...]]).decode


class Pieces(msgspec.Struct, frozen=True):
    """What is read of a log, a piece at a time, and the pipe that some of it comes by."""

    readings: Iterator[Reading]
    pipe: int | None = None

    def is_ready(self) -> bool:
        """Tell whether nobody else is still at work on the next one."""
        return self.pipe is None or _is_open(self.pipe, select.POLLIN, 0)


@contextmanager
def readings(
    reader: Reader,
    places: Mapping[bytes, bytes],
    bytes_max: int,
    price: Callable[[UsageRecord], Charge],
) -> Iterator[Pieces]:
    """Read on from these places to the end, about bytes_max at a time.

    What a second process has read is priced, too.

    A second process lives as long as the block at most, and begins at once where nothing was read
    before. Only a process of a single thread gets one, since it is forked.
    """
    first = []
    known = dict(places)
    if known:  # mostly little is new, and a process would be made in vain
        first.append(reader.read(known, bytes_max))
        known = places_after(known, first[0].batch)
    is_all = bool(first) and not first[0].more
    if is_all or not _can_fork():
        yield Pieces(_to_the_end(reader, places, bytes_max, first))
    else:
        with _second(reader, known, bytes_max, price) as pipe:
            told = chain(first, _told(pipe, reader))
            yield Pieces(_to_the_end(reader, places, bytes_max, told), pipe)


def alone(reader: Reader, places: Mapping[bytes, bytes], bytes_max: int) -> Pieces:
    """Do the same in this process only."""
    return Pieces(_to_the_end(reader, places, bytes_max, ()))


def _to_the_end(
    reader: Reader, places: Mapping[bytes, bytes], bytes_max: int, told: Iterable[Reading]
) -> Iterator[Reading]:
    """Give what was told, and read what is missing."""
    more = True
    for reading in told:
        places, more = places_after(places, reading.batch), reading.more
        yield reading
    while more:
        reading = reader.read(places, bytes_max)
        places, more = places_after(places, reading.batch), reading.more
        yield reading


def _can_fork() -> bool:
    if sys.platform != "linux" or len(os.sched_getaffinity(0)) < CORES_MIN:
        return False
    try:
        return len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208 - threads of C, too
    except OSError:
        return False


@contextmanager
def _second(
    reader: Reader,
    places: Mapping[bytes, bytes],
    bytes_max: int,
    price: Callable[[UsageRecord], Charge],
) -> Iterator[int | None]:
    """Start the second process; give the pipe that it tells by: none if there is no room for it."""
    try:
        taking, telling = os.pipe()
    except OSError:
        yield None
        return
    try:
        _widen(telling)
        # Interrupted at once, the second one would leave by its parent's way: through its database.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        first, pid = os.getpid(), None
        try:
            gc.freeze()  # what both have stays shared, and neither looks through it again
            with suppress(OSError):
                pid = os.fork()
            if pid == 0:
                os.close(taking)
                found = _to_the_end(reader, places, bytes_max, ())
                _tell_all(_priced(found, price), telling, before)
            os.close(telling)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield taking
        finally:
            if os.getpid() != first:  # whatever is raised: the first reads what is missing,
                os._exit(1)  # and meets it too
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)  # ours until it is waited for: it is nobody else
                os.waitpid(pid, 0)
    finally:
        os.close(taking)


def _widen(pipe: int) -> None:
    import fcntl  # noqa: PLC0415 - for logs that take more than one piece

    with suppress(OSError):  # narrower, it only waits more often
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _priced(
    readings: Iterable[Reading], price: Callable[[UsageRecord], Charge]
) -> Iterator[Reading]:
    for reading in readings:
        charges = tuple(map(price, reading.batch.records))
        yield replace(reading, batch=replace(reading.batch, charges=charges))


def _tell_all(readings: Iterable[Reading], telling: int, mask: Iterable[int]) -> NoReturn:
    """Read and tell to the end, and end this process without its parent's farewells."""
    import pickle  # noqa: PLC0415 - for logs that take more than one piece

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the parent says that it was interrupted
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    os.set_blocking(telling, False)
    held = bytearray()
    for reading in readings:
        batch = reading.batch
        head = replace(reading, batch=replace(batch, records=(), charges=()))
        packed = _pack((batch.records, batch.charges))
        piece = pickle.dumps((head, packed), pickle.HIGHEST_PROTOCOL)
        held += len(piece).to_bytes(LENGTH_BYTES)
        held += piece
        _tell(held, telling, HELD_BYTES_MAX)
    _tell(held, telling, 0)
    os._exit(0)


def _tell(held: bytearray, telling: int, rest_bytes: int) -> None:
    """Tell what is held, as far as there is room for it, but in any case all but so much."""
    while held:
        try:
            del held[: os.write(telling, held)]
        except BlockingIOError:
            if len(held) <= rest_bytes:
                return
            _is_open(telling, select.POLLOUT, None)


def _is_open(pipe: int, event: int, timeout_s: float | None) -> bool:
    """Tell whether a pipe can be read or written, or has no other end any more."""
    poll = select.poll()  # which takes descriptors of any number
    poll.register(pipe, event)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))


def _told(pipe: int | None, reader: Reader) -> Iterator[Reading]:
    if pipe is None:
        return
    import pickle  # noqa: PLC0415 - as above

    more = True
    while more:
        length = int.from_bytes(_exactly(pipe, LENGTH_BYTES))
        piece = _exactly(pipe, length)
        if not piece:  # it was ended, perhaps within a word
            reader.close()  # the second one has moved on in files that both have open
            return
        head, packed = pickle.loads(piece)  # noqa: S301 - told by our own process
        more = head.more
        records, charges = _unpack(packed)
        yield replace(head, batch=replace(head.batch, records=records, charges=charges))


def _exactly(pipe: int, length: int) -> bytes:
    """Take so many bytes; nothing if they do not come any more."""
    taken = bytearray()
    while len(taken) < length:
        some = os.read(pipe, min(length - len(taken), PIPE_BYTES))
        if not some:
            return b""
        taken += some
    return bytes(taken)
