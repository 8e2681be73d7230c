"""Registering many agents at once: several at a time, with the results of one after another.

Invariant: entries of one agent for one specialization are sent in their order; the first error, in
the order of the entries, is raised once nothing is under way any more.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshnode.client.mesh import MeshClient
    from meshnode.client.targets.targets import Delivery
    from meshnode.core.sessions.registry import Place, Specialist

    Plain = dict[str, Any]

AT_ONCE = 8  # a node executes 64 commands at a time, and others want to be served too


def register_all(
    mesh: MeshClient,
    entries: Sequence[Specialist],
    delivery: Delivery,
    done: Callable[[int], None] = lambda _: None,
) -> list[Plain]:
    """Register the entries; returns what became of each. `done` hears how many are registered.

    Raises the MeshError of the first entry that failed; none is begun after an error.
    """
    places: dict[Place, list[int]] = {}
    for number, entry in enumerate(entries):
        places.setdefault(entry.place, []).append(number)
    batch = _Batch(mesh, entries, delivery, done)
    first, *others = places.values()
    batch.register(first)  # alone: what is wrong with all of them is said at once
    with ThreadPoolExecutor(AT_ONCE) as pool:
        works = [pool.submit(batch.register, numbers) for numbers in others]
        try:
            for work in works:
                work.result()
        finally:
            batch.stopped.set()  # an interrupt too: nothing more is begun
    return [batch.results[number] for number in range(len(entries))]


class _Batch:
    def __init__(
        self,
        mesh: MeshClient,
        entries: Sequence[Specialist],
        delivery: Delivery,
        done: Callable[[int], None],
    ) -> None:
        self._mesh = mesh
        self._entries = entries
        self._delivery = delivery
        self._done = done
        self.results: dict[int, Plain] = {}
        self.stopped = Event()

    def register(self, numbers: Sequence[int]) -> None:
        """Register these, one after another."""
        for number in numbers:
            if self.stopped.is_set():
                return
            entry = self._entries[number]
            try:
                self.results[number] = self._mesh.register(
                    entry.agent_id, entry.specialization, entry.attributes, self._delivery
                )
            except BaseException:
                self.stopped.set()
                raise
            self._done(len(self.results))
