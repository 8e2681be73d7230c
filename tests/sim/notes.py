"""What owners meant to publish: the model that no row may fall behind.

Invariant: every write of a note has a number that only grows. A row that is shown must never be
older than what was synced by its owner or, after its disk was lost, than what somebody else's disk
still held then; so nothing deleted comes back, and nothing published is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.errors import ExhaustedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from sim.machine import Machine

    from meshnode.core.feeds.feed import Change
    from meshnode.core.ids import NodeId

NOTES = "notes"  # a table that no reader knows
KEYS = 4
Numbers = dict[bytes, int]  # by key, the number of the write that it shows


class Notes:
    """Every write of a note, and which of them must not be missing."""

    def __init__(self) -> None:
        self.number = 0
        self._meant: dict[tuple[NodeId, bytes], list[tuple[int, bytes | None]]] = {}
        self._at: dict[bytes, Numbers] = {}  # what each flush's state shows, by its signature
        self._now: dict[NodeId, Numbers] = {}
        self.required: dict[NodeId, Numbers] = {}

    def write(self, machine: Machine, rng: Random) -> None:
        """Write or delete a random note."""
        self.number += 1
        key = b"%d" % rng.randrange(KEYS)
        value = None if rng.random() < 0.3 else b"%d of %s" % (self.number, machine.name.encode())
        meant = self._meant.setdefault((machine.id, key), [])
        meant.append((self.number, value))
        try:
            machine.write(NOTES, key, value)
        except ExhaustedError:  # it was never said
            machine.world.counts["notes refused"] += 1
            del meant[-1]

    def started(self, machine: Machine) -> None:
        if machine.id not in self.required:
            return
        held = machine.disk.feeds.get(machine.id)
        signed = None if held is None else held[0].signed
        self._now[machine.id] = dict(self._at.get(signed.signature, {})) if signed else {}

    def flushed(self, machine: Machine, change: Change) -> None:
        now = self._now.setdefault(machine.id, {})
        for (table, key), row in change.rows.items():
            if table == NOTES:
                value = None if row is None else row.value
                now[key] = self._number_of(machine.id, key, value)
        if change.header.signed is not None and self.number:
            self._at[change.header.signed.signature] = dict(now)

    def synced(self, machine: Machine, change: Change) -> None:
        signed = change.header.signed
        shown = self._at.get(signed.signature, {}) if signed else {}
        required = self.required.setdefault(machine.id, {})
        for key, number in shown.items():
            required[key] = max(required.get(key, 0), number)

    def stopped(self, machine: Machine) -> None:
        """Forget the writes that were not synced: they never happened."""
        required = self.required.get(machine.id, {})
        for (owner, key), meant in self._meant.items():
            if owner == machine.id:
                meant[:] = [one for one in meant if one[0] <= required.get(key, 0)]

    def disk_lost(self, owner: Machine) -> None:
        """Ask no more of an owner than what other disks, or its own old one, still hold."""
        best = None
        for machine in owner.world.nodes:
            held = machine.disk.feeds.get(owner.id)
            if held is not None and (best is None or held[0].head > best.head):
                best = held[0]
        signed = None if best is None else best.signed
        self.required[owner.id] = dict(self._at.get(signed.signature, {})) if signed else {}

    def _number_of(self, owner: NodeId, key: bytes, value: bytes | None) -> int:
        for number, meant in reversed(self._meant.get((owner, key), [])):
            if meant == value:
                return number
        return 0

    def differences(self, machine: Machine) -> Iterator[str]:
        """Name the notes of an owner that are older than they may be."""
        rows = machine.running.own.rows
        for key, number in self.required.get(machine.id, {}).items():
            row = rows.get(NOTES, key)
            value = None if row is None else row.value
            shown = self._number_of(machine.id, key, value)
            if shown < number:
                said = "missing" if value is None else value.decode()
                yield f"{machine.name}: note {key.decode()} is {said}, older than write {number}"
