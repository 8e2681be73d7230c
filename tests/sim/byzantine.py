"""A member that lies: it has a valid key and working links, and sends what no honest node would.

Invariant: every kind of lie is counted when it is sent, so that a run can prove that it was told.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING

from sim.notes import NOTES

from meshnode.core.feed import Flush, Op, delta_to_bytes
from meshnode.core.headers import Header, sign_header
from meshnode.core.ids import short_id_of
from meshnode.core.members import LINKS, ONLY_ROW, LinksRecord, links_to_row
from meshnode.core.rows import Row, Rows
from meshnode.core.snapshots import whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from sim.machine import Machine
    from sim.network import Pipe
    from sim.world import World

    from meshnode.core.messages import Message

SEQ_MAX = (1 << 63) - 1
HEARD_MAX = 200  # frames kept to be sent again


class Liar:
    """What one machine sends beside what its mesh does."""

    def __init__(self, world: World, machine: Machine, rng: Random) -> None:
        self.world, self.machine, self._rng = world, machine, rng
        self._heard: list[Message] = []
        self._stale: list[Message] = []
        self._before = world.on_message
        world.liars.add(machine.id)
        world.on_message = self._listen
        self._lies: tuple[Callable[[], bool], ...] = (
            self._random_bytes,
            self._largest_seq,
            self._lying_links,
            self._fork,
            self._forged_rows,
            self._bent_delta,
            self._stale_snapshot,
            self._replay,
        )

    def _listen(self, source: Machine, target: Machine, message: Message) -> None:
        if target is self.machine and len(self._heard) < HEARD_MAX:
            self._heard.append(message)
        if self._before is not None:
            self._before(source, target, message)

    def remember(self) -> None:
        """Keep snapshots of the others, to be sent when they are stale."""
        for origin, held in self.machine.running.replication.replicas.items():
            if origin != self.machine.id and held.header is not None:
                self._stale.append(whole(held.header, held.rows))

    def lie(self) -> None:
        """Tell one lie of each kind."""
        if self.machine.mesh is None:
            return
        for lie in self._lies:
            if lie():
                self.world.counts[f"lies: {lie.__name__.strip('_').replace('_', ' ')}"] += 1

    def _pipes(self) -> list[Pipe]:
        streams = self.machine.streams
        return [streams[peer].pipes[self.machine.id] for peer in sorted(streams)]

    def _say(self, *messages: Message) -> bool:
        pipes = self._pipes()
        for pipe in pipes:
            for message in messages:
                self.world.network.transmit(pipe, self.world.network.frames.encoded(message))
        return bool(pipes)

    def _random_bytes(self) -> bool:
        pipes = self._pipes()
        if not pipes:
            return False
        frame = self._rng.randbytes(self._rng.randrange(1, 60))
        self.world.network.transmit(self._rng.choice(pipes), frame)
        return True

    def _flush(self, first_seq: int, text: bytes, **fields: object) -> Flush:
        """Sign a flush whose delta and state belong together, whatever its place."""
        delta = delta_to_bytes([Op(NOTES, b"lie", text)])
        own = self.machine.running.own
        rows = Rows()
        rows.put(NOTES, b"lie", Row(own.epoch, first_seq, text))
        header = Header(
            self.world.genesis.mesh_id,
            self.machine.id,
            own.epoch,
            self.machine.boot,
            first_seq,
            first_seq,
            sha256(delta).digest(),
            rows.state_hash(),
            0.0,
        )
        return Flush(sign_header(self.machine.key, replace(header, **fields)), delta)

    def _largest_seq(self) -> bool:
        return self._say(self._flush(SEQ_MAX, b"largest"))

    def _lying_links(self) -> bool:
        everybody = frozenset(short_id_of(machine.id) for machine in self.world.nodes)
        self.machine.write(LINKS, ONLY_ROW, links_to_row(LinksRecord(everybody)))
        return True

    def _fork(self) -> bool:
        seq = self.machine.running.own.head.seq + 1
        one, other = self._flush(seq, b"one"), self._flush(seq, b"other")
        frames = self.world.network.frames
        for number, pipe in enumerate(self._pipes()):
            self.world.network.transmit(pipe, frames.encoded(other if number % 2 else one))
        return bool(self._pipes())

    def _forged_rows(self) -> bool:
        """Claim another origin; signed with the wrong key, since it has no other."""
        victims = [machine.id for machine in self.world.nodes if machine is not self.machine]
        forged = self._flush(1, b"forged", origin=self._rng.choice(victims), epoch=1 << 40)
        return self._say(forged)

    def _bent_delta(self) -> bool:
        """Put other rows beneath somebody's proper signature."""
        flushes = [message for message in self._heard if isinstance(message, Flush)]
        if not flushes:
            return False
        delta = delta_to_bytes([Op(NOTES, b"bent", b"delta")])
        return self._say(replace(self._rng.choice(flushes), delta=delta))

    def _stale_snapshot(self) -> bool:
        return bool(self._stale) and self._say(self._rng.choice(self._stale))

    def _replay(self) -> bool:
        return bool(self._heard) and self._say(self._rng.choice(self._heard))
