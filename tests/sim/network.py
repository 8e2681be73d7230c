"""The network between machines: dials, and streams that deliver in order, until something breaks.

Invariant: a frame arrives at most as often as the faults say, never on a stream that its receiver
has let go. Every frame passes the outbox of the real node, and is decoded as a node decodes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.frames import Frames

from meshnode.app.mesh.outbox import Outbox
from meshnode.core.errors import PeerError
from meshnode.wire.links import FRAME_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sim.machine import Machine
    from sim.world import World

    from meshnode.core.ids import NodeId

LATENCY_S = (0.001, 0.05)
DIAL_TIMEOUT_S = 4.0
WINDOW_BYTES = 256 << 10  # under way on one stream; then its outbox fills


class Pipe:
    """One direction of a stream."""

    __slots__ = (
        "arrives_s",
        "in_flight",
        "outbox",
        "sent",
        "source",
        "stream",
        "target",
        "waiting",
    )

    def __init__(self, stream: Stream, source: Machine, target: Machine) -> None:
        self.stream, self.source, self.target = stream, source, target
        self.outbox = Outbox()
        self.arrives_s = 0.0  # the last frame under way: later ones do not overtake it
        self.in_flight = 0
        self.sent = 0
        self.waiting = False  # for bandwidth, or for the window


class Stream:
    """One stream; each end holds it until it notices that it broke."""

    __slots__ = ("_ends", "boots", "dialler", "pipes", "since_s")

    def __init__(self, dialler: Machine, acceptor: Machine, now_s: float) -> None:
        self.dialler = dialler.id
        self.boots = {dialler.id: dialler.boot, acceptor.id: acceptor.boot}
        self.since_s = now_s
        self._ends = (dialler.id, acceptor.id)
        self.pipes = {
            dialler.id: Pipe(self, dialler, acceptor),
            acceptor.id: Pipe(self, acceptor, dialler),
        }

    def other(self, end: NodeId) -> NodeId:
        one, other = self._ends
        return other if end == one else one


class _Dial:
    __slots__ = ("addresses", "life", "over", "source", "target")

    def __init__(self, source: Machine, target: Machine, addresses: tuple[str, ...]) -> None:
        self.source, self.target, self.addresses = source, target, addresses
        self.life = source.life
        self.over = False


class Network:
    """Dials and streams, and what faults do to them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.frames = Frames(world.genesis.mesh_id)
        self.latency_s = LATENCY_S
        self.frames_sent = 0
        self.bytes_sent = 0
        self.groups: dict[NodeId, int] = {}
        self.cuts: set[tuple[NodeId, NodeId]] = set()  # frames this way vanish; nobody is told
        self.spikes: dict[NodeId, float] = {}  # seconds more to and from this machine
        self.narrow: dict[NodeId, float] = {}  # bytes a second out of this machine
        self.lost = 0.0  # chances of a frame, but for the first of a stream
        self.doubled = 0.0
        self.swapped = 0.0

    # Dials.

    def dial(self, source: Machine, peer: NodeId, addresses: tuple[str, ...]) -> None:
        world = self.world
        dial = _Dial(source, world.machines[peer], addresses)
        world.counts["dials"] += 1
        world.after(self._delay_s(source.id, peer), None, self._reach, dial)
        at_s = world.now_s + DIAL_TIMEOUT_S
        world.at(at_s, source, self._time_out, (dial,), timer=True)

    def _reach(self, dial: _Dial) -> None:
        source, target = dial.source, dial.target
        if source.life != dial.life:
            return
        if (source.id, target.id) in self.cuts:
            self.world.counts["frames dropped"] += 1
        elif self._listens(dial):
            self.world.after(0.0, target, self._accept, dial)
        elif (target.id, source.id) not in self.cuts:
            self.world.after(self._delay_s(target.id, source.id), source, self._give_up, dial)

    def _listens(self, dial: _Dial) -> bool:
        target = dial.target
        listens = target.mesh is not None and target.address in dial.addresses
        return listens and self.joined(dial.source, target)

    def _accept(self, dial: _Dial) -> None:
        source, target = dial.source, dial.target
        if dial.over or target.mesh is None or source.life != dial.life:
            return
        stream = Stream(source, target, self.world.now_s)
        target.opened(stream)
        if (target.id, source.id) not in self.cuts:
            at_s = self._arrival_s(stream.pipes[target.id])
            self.world.at(at_s, source, self._answered, (dial, stream))

    def _answered(self, dial: _Dial, stream: Stream) -> None:
        source, target = dial.source, dial.target
        if dial.over:
            self.close(stream, source, "reset")
        elif not self.joined(source, target):
            self._give_up(dial)
            self.close(stream, source, "reset")
        else:
            dial.over = True
            if not source.opened(stream):
                self.close(stream, source, "reset")
            elif target.streams.get(source.id) is not stream:
                source.drop(stream, "reset")

    def _time_out(self, dial: _Dial) -> None:
        """Give up; a frozen machine's kernel has accepted the connection all the same."""
        stalled = dial.target.frozen and self.open_between(dial.source, dial.target)
        self._give_up(dial, stalled=stalled)

    def _give_up(self, dial: _Dial, *, stalled: bool = False) -> None:
        if not dial.over:
            dial.over = True
            self.world.counts["dials failed"] += 1
            source, peer = dial.source, dial.target.id
            source.do(source.running.dial_failed(peer, self.world.now_s, stalled=stalled))

    def connect(self, one: Machine, other: Machine) -> None:
        """Put a working stream between two machines at once, as if it had long been there."""
        stream = Stream(one, other, self.world.now_s)
        for end, far in ((one, other), (other, one)):
            end.streams[far.id] = stream
            end.do(end.running.linked(far.id, self.world.now_s, dialled=end is one))

    # Streams.

    def pump(self, pipe: Pipe) -> None:
        """Bring what waits in an outbox on its way, as far as window and bandwidth allow."""
        pipe.waiting = False
        outbox = pipe.outbox
        while pipe.in_flight <= WINDOW_BYTES:
            message = outbox.pop()
            if message is None:
                break
            frame = self.frames.encoded(message)
            if len(frame) > FRAME_BYTES_MAX:
                raise AssertionError(f"{pipe.source.name} sends a frame that nobody takes")
            self.transmit(pipe, frame)
            if self.narrow:
                bytes_per_s = self.narrow.get(pipe.source.id)
                if bytes_per_s is not None:
                    pipe.waiting = True
                    self.world.counts["frames squeezed"] += 1
                    delay_s = len(frame) / bytes_per_s
                    self.world.after(delay_s, pipe.source, self.pump, pipe)
                    break
        else:
            pipe.waiting = True  # until frames arrive
            self.world.counts["windows full"] += 1
        if outbox.overflowed and outbox.emptied_after_overflow():
            pipe.source.caught_up(pipe.target.id)

    def transmit(self, pipe: Pipe, frame: bytes) -> None:
        """Send one frame."""
        self.frames_sent += 1
        self.bytes_sent += len(frame)
        pipe.sent += 1
        if pipe.sent > 1 and (self.lost or self.doubled or self.swapped):
            self._transmit_badly(pipe, frame)
        else:
            self._send(pipe, frame, self._arrival_s(pipe))

    def _send(self, pipe: Pipe, frame: bytes, at_s: float) -> None:
        pipe.in_flight += len(frame)
        self.world.at(at_s, pipe.target, self._arrive, (pipe, frame))

    def _transmit_badly(self, pipe: Pipe, frame: bytes) -> None:
        rng, counts = self.world.rng, self.world.counts
        if rng.random() < self.lost:
            counts["frames lost"] += 1
            return
        if rng.random() < self.swapped:
            counts["frames swapped"] += 1
            delay_s = self._delay_s(pipe.source.id, pipe.target.id) * 3
            self._send(pipe, frame, self.world.now_s + delay_s)
        else:
            self._send(pipe, frame, self._arrival_s(pipe))
        if rng.random() < self.doubled:
            counts["frames doubled"] += 1
            self._send(pipe, frame, self._arrival_s(pipe))

    def _arrive(self, pipe: Pipe, frame: bytes) -> None:
        source, target = pipe.source, pipe.target
        if self.cuts and (source.id, target.id) in self.cuts:
            pipe.in_flight -= len(frame)
            self.world.counts["frames dropped"] += 1
        elif target.slow_s:
            at_s = max(self.world.now_s, target.busy_until_s) + target.slow_s
            target.busy_until_s = at_s
            self.world.counts["frames taken late"] += 1
            self.world.at(at_s, target, self._deliver, (pipe, frame))
        elif target.busy_until_s > self.world.now_s:  # was slow, and has not caught up
            self.world.at(target.busy_until_s, target, self._deliver, (pipe, frame))
        else:
            self._deliver(pipe, frame)

    def _deliver(self, pipe: Pipe, frame: bytes) -> None:
        source, target, world = pipe.source, pipe.target, self.world
        pipe.in_flight -= len(frame)
        if pipe.waiting and pipe.in_flight <= WINDOW_BYTES and source.id not in self.narrow:
            world.after(0.0, source, self.pump, pipe)
        if target.streams.get(source.id) is not pipe.stream:
            return
        if world.tracing:
            world.trace_bytes(frame)
        try:
            message = self.frames.decoded(frame)
        except PeerError as error:
            target.report("frame_refused", source.id, error.message)
            return
        except ValueError as error:  # bytes that are no frame end a stream
            target.report("frame_refused", source.id, str(error))
            target.drop(pipe.stream, "reset")
            self.close(pipe.stream, target, "reset")
            return
        if message is None:
            world.counts["frames of unknown kinds"] += 1
        else:
            world.received(source, target, message)

    def close(self, stream: Stream, source: Machine, reason: str) -> None:
        """Let the other end notice, after the frames under way, that a stream has ended."""
        pipe = stream.pipes[source.id]
        if pipe.target.mesh is not None:
            args = (pipe, reason)
            self.world.at(self._arrival_s(pipe), pipe.target, self._closed, args)

    def _closed(self, pipe: Pipe, reason: str) -> None:
        if (pipe.source.id, pipe.target.id) in self.cuts:
            self.world.counts["resets dropped"] += 1
        else:
            pipe.target.drop(pipe.stream, reason)

    # What faults do.

    def reset(self, one: Machine, other: Machine, *, both: bool = True) -> int:
        """Break the stream of a pair, at both ends or so that only `one` sees it."""
        count = 0
        for end, far in ((one, other), (other, one)) if both else ((one, other),):
            stream = end.streams.get(far.id)
            if stream is not None:
                count += 1
                self.close(stream, far, "reset")
        self.world.counts["resets" if both else "half resets"] += count
        return count

    def partition(self, *groups: Iterable[Machine], silently: bool = False) -> None:
        """Let only members of one group talk; streams between groups break, or fall silent."""
        self.world.counts["partitions"] += 1
        places = {m.id: n for n, group in enumerate(groups) for m in group}
        if silently:
            for one in self.world.nodes:
                for other in self.world.nodes:
                    if places.get(one.id) != places.get(other.id):
                        self.cuts.add((one.id, other.id))
            return
        self.groups = places
        for one in self.world.nodes:
            for peer in sorted(one.streams):
                if one.id < peer and places.get(one.id) != places.get(peer):
                    self.reset(one, self.world.machines[peer])

    def silence(self, one: Machine, other: Machine) -> None:
        """From now on frames between two nodes vanish; nobody is told."""
        self.cuts |= {(one.id, other.id), (other.id, one.id)}

    def heal(self) -> None:
        """Take all faults away."""
        self.groups = {}
        self.cuts = set()
        self.spikes = {}
        self.lost = self.doubled = self.swapped = 0.0
        narrowed, self.narrow = self.narrow, {}
        for machine in self.world.nodes:
            if machine.id in narrowed:
                for stream in machine.streams.values():
                    self.pump(stream.pipes[machine.id])

    def joined(self, one: Machine, other: Machine) -> bool:
        return self.groups.get(one.id) == self.groups.get(other.id)

    def open_between(self, one: Machine, other: Machine) -> bool:
        """Whether frames pass both ways."""
        there, back = (one.id, other.id), (other.id, one.id)
        return self.joined(one, other) and not (there in self.cuts or back in self.cuts)

    def _delay_s(self, source: NodeId, target: NodeId) -> float:
        delay_s = self.world.rng.uniform(*self.latency_s)
        if self.spikes and (source in self.spikes or target in self.spikes):
            self.world.counts["frames delayed"] += 1
            delay_s += max(self.spikes.get(source, 0.0), self.spikes.get(target, 0.0))
        return delay_s

    def _arrival_s(self, pipe: Pipe) -> float:
        delay_s = self._delay_s(pipe.source.id, pipe.target.id)
        at_s = max(self.world.now_s + delay_s, pipe.arrives_s)
        pipe.arrives_s = at_s
        return at_s
