"""A member that lies: it has a valid key and working links, and sends what no honest node would.

Invariant: every kind of lie is counted when it is sent, so that a run can prove that it was told.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from msgspec.structs import replace
from sim.notes import NOTES

from meshnode.core.control.entries import Forget, sign_entry
from meshnode.core.feeds.feed import Flush, Op, delta_to_bytes
from meshnode.core.feeds.headers import Header, sign_header
from meshnode.core.feeds.heads import Head
from meshnode.core.feeds.messages import BucketRows, Fork, Have, Manifest, Vector
from meshnode.core.feeds.rows import Row, Rows
from meshnode.core.feeds.snapshots import whole
from meshnode.core.ids import node_id_of, short_id_of
from meshnode.core.membership.members import LINKS, ONLY_ROW, LinksRecord, links_to_row
from meshnode.core.packing import pack
from meshnode.core.tables.removals import REMOVALS, after_key, after_row

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from sim.machine import Machine
    from sim.network import Pipe
    from sim.world import World

    from meshnode.core.feeds.messages import Message
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Key

SEQ_MAX = (1 << 63) - 1
HEARD_MAX = 200  # frames kept to be sent again


class Liar:
    """What one machine sends beside what its mesh does."""

    def __init__(self, world: World, machine: Machine, rng: Random) -> None:
        self.world, self.machine, self._rng = world, machine, rng
        self._heard: list[Message] = []
        self._stale: list[Message] = []
        self._manifests: list[Message] = []
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
            self._empty_offers,
            self._old_manifest,
            self._stray_buckets,
            self._two_histories,
            self._forged_fork,
            self._silent_flush,
            self._far_after,
            self._forget_without_a_role,
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
                self._manifests.append(Manifest(held.header, held.rows.manifest()))

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

    def _victim(self) -> NodeId:
        others = [machine.id for machine in self.world.nodes if machine is not self.machine]
        return self._rng.choice(others)

    def _empty_offers(self) -> bool:
        """Offer what nobody has written, and of others more than they have."""
        invented = (node_id_of(self._rng.randbytes(32)) for _ in range(300))
        ahead = dict.fromkeys([*invented, self._victim()], Head(SEQ_MAX - 1, SEQ_MAX))
        return self._say(Vector(ahead), Have(dict.fromkeys(list(ahead)[-9:], Head(SEQ_MAX, 1))))

    def _old_manifest(self) -> bool:
        return bool(self._manifests) and self._say(self._rng.choice(self._manifests))

    def _stray_buckets(self) -> bool:
        """Answer in place of those who were asked: with nothing, and with rows of nobody."""
        origin = self._victim()
        junk = pack([[NOTES, b"stray", 1, 1, b"bucket"]])
        return self._say(*(BucketRows(origin, rows, last=True) for rows in (pack([]), junk)))

    def _proof(self, key: Key, origin: NodeId, epoch: int) -> Fork:
        one, other = (
            self._flush(5, text, origin=origin, epoch=epoch).header for text in (b"one", b"other")
        )
        return Fork((sign_header(key, one), sign_header(key, other)))

    def _two_histories(self) -> bool:
        """Prove of itself that an epoch has two histories; the own mesh opens the next."""
        return self._say(self._proof(self.machine.key, self.machine.id, self._epoch()))

    def _epoch(self) -> int:
        return self.machine.running.own.epoch

    def _forged_fork(self) -> bool:
        """Claim two histories of another, signed with the wrong key."""
        return self._say(self._proof(self.machine.key, self._victim(), 1 << 40))

    def _silent_flush(self) -> bool:
        """Say two things at one position, in whole feeds whose last flush has no writes."""
        messages = []
        for text in (b"one", b"other"):
            rows = Rows()
            rows.put(NOTES, b"lie", Row(1, 1, text))
            fields = {"epoch": self._epoch() + 1, "first_seq": 2, "last_seq": 1}
            header = replace(self._flush(1, text).header, state_hash=rows.state_hash(), **fields)
            messages.append(whole(sign_header(self.machine.key, header), rows))
        frames = self.world.network.frames
        for number, pipe in enumerate(self._pipes()):
            self.world.network.transmit(pipe, frames.encoded(messages[number % 2]))
        return bool(self._pipes())

    def _far_after(self) -> bool:
        """Say of another that entries must be hidden until it has written what it never will."""
        victim = self._victim()
        header = self._flush(SEQ_MAX, b"after", origin=victim, epoch=SEQ_MAX).header
        row = self._rng.choice([after_row(header), pack([SEQ_MAX, SEQ_MAX])])
        self.machine.write(REMOVALS, after_key(victim), row)
        return True

    def _forget_without_a_role(self) -> bool:
        header = self.machine.running.replication.replicas[self.machine.id].header
        mesh_id, chance = self.world.genesis.mesh_id, self._rng.randbytes
        if header is None:
            return False
        return self._say(sign_entry(self.machine.key, mesh_id, Forget(header), chance, issued_s=1))
