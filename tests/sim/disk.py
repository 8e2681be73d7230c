"""A machine's disk: what is synced, and the writer that brings it there as the node's own does.

Invariant: writes land in order and in batches, each whole or not at all; what was not synced when
its machine ended is lost; while the disk is full nothing of ours counts as synced, and the same
batch is tried again every RETRY_S (as in meshnode/node/homes/persistence.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from meshnode.core.control.entries import entry_id_of
from meshnode.core.feeds.feed import Change
from meshnode.core.feeds.rows import Rows, all_rows

if TYPE_CHECKING:
    from sim.machine import Machine

    from meshnode.core.feeds.forks import Proof
    from meshnode.core.feeds.headers import Header
    from meshnode.core.feeds.rows import Row
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Signed

Entries = dict[bytes, "Signed | None"]  # by id; None: to be deleted
DISK_S = (0.001, 0.005)
RETRY_S = 1.0
PENDING_MAX = 4096  # more changes of a replica collapse into one copy of its rows


@dataclass
class Disk:
    """What is synced: headers with their rows, and control entries."""

    feeds: dict[NodeId, tuple[Header, dict[tuple[str, bytes], Row | None]]] = field(
        default_factory=dict
    )
    control: dict[bytes, Signed] = field(default_factory=dict)
    forks: dict[NodeId, Proof] = field(default_factory=dict)

    def save(self, change: Change) -> None:
        held = self.feeds.get(change.origin)
        rows = dict(held[1]) if held and change.flush else {}
        for place, row in change.rows.items():
            if row is None:
                rows.pop(place, None)
            else:
                rows[place] = row
        self.feeds[change.origin] = (change.header, rows)

    def copy(self) -> Disk:
        feeds = {o: (header, dict(rows)) for o, (header, rows) in self.feeds.items()}
        return Disk(feeds, dict(self.control), dict(self.forks))

    def load(self) -> list[tuple[Header, Rows]]:
        """Return every feed as a node restores it."""
        loaded = []
        for header, places in self.feeds.values():
            rows = Rows()
            for (table, key), row in places.items():
                rows.put(table, key, row)
            loaded.append((header, rows))
        return loaded


class Writer:
    """What waits for one machine's disk, from its start to its end."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._waiting: list[tuple[Change, bool]] = []
        self._entries: Entries = {}
        self._collapsed: set[NodeId] = set()
        self._busy = False

    def put(self, change: Change, *, ours: bool) -> None:
        if not ours and change.origin in self._collapsed:
            return
        if not ours and len(self._waiting) >= PENDING_MAX:
            self._collapsed.add(change.origin)
        else:
            self._waiting.append((change, ours))
        self._machine.world.counts["writes begun"] += 1
        self._begin()

    def put_fork(self, proof: Proof) -> None:
        self._machine.disk.forks[proof[0].origin] = proof  # small, and proved again if lost

    def put_entry(self, entry: Signed) -> None:
        self._entries[entry_id_of(entry)] = entry
        self._begin()

    def drop_entries(self, entry_ids: tuple[bytes, ...]) -> None:
        self._entries.update(dict.fromkeys(entry_ids))
        self._begin()

    def _begin(self) -> None:
        if self._busy or not (self._waiting or self._entries or self._collapsed):
            return
        self._busy = True
        changes, self._waiting = self._waiting, []
        entries, self._entries = self._entries, {}
        replicas = self._machine.running.replication.replicas
        for origin in sorted(self._collapsed):
            replica = replicas[origin]
            if replica.header is not None:
                copy = Change(origin, replica.header, None, all_rows(replica.rows))
                changes.append((copy, False))
        self._collapsed.clear()
        world = self._machine.world
        world.after(world.rng.uniform(*DISK_S), self._machine, self._written, changes, entries)

    def _written(self, changes: list[tuple[Change, bool]], entries: Entries) -> None:
        machine = self._machine
        if machine.disk_full:
            machine.world.counts["writes failed"] += 1
            machine.world.after(RETRY_S, machine, self._written, changes, entries)
            return
        life = machine.life
        machine.world.counts["writes synced"] += len(changes)
        for change, ours in changes:
            machine.save(change, ours=ours)
        for entry_id, entry in entries.items():
            if entry is None:
                machine.disk.control.pop(entry_id, None)
            else:
                machine.disk.control[entry_id] = entry
        for change, ours in changes:
            if ours and machine.life == life:
                machine.synced(change)
        self._busy = False
        if machine.life == life:
            self._begin()
