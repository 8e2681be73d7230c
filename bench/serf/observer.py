"""`observe` around the core of a node of ours, which writes a line for each change it has taken."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.app.mesh.mesh import Mesh
    from meshnode.core.effects import Effect
    from meshnode.core.feeds.feed import Change


def observe() -> None:  # noqa: C901 - one small function a kind of notice
    """Let the core of the node in this process write to stdout what it takes in."""
    import json  # noqa: PLC0415 - this function is the whole of a module in the node's process
    import os  # noqa: PLC0415 - as above
    import time  # noqa: PLC0415 - as above

    from meshnode.app.mesh.mesh import Mesh  # noqa: PLC0415 - as above
    from meshnode.core.effects import STATES, Announce, Persist  # noqa: PLC0415 - as above
    from meshnode.core.sessions.sessions import SESSIONS  # noqa: PLC0415 - as above

    seen: set[str] = set()

    def tell(event: str, about: str) -> None:
        line = json.dumps({"event": event, "about": about, "at_s": time.perf_counter()}) + "\n"
        os.write(1, line.encode())

    def tell_rows(event: str, change: Change) -> None:
        for rows_of, key in change.rows:
            if rows_of == SESSIONS:
                tell(event, key.decode())

    def tell_states(mesh: Mesh) -> None:
        alive = set(mesh.liveness.alive)
        for event, peers in (("alive", alive - seen), ("lost", seen - alive)):
            for peer in peers:
                tell(event, mesh.tables.node(peer).name)
        seen.clear()
        seen.update(alive)

    def observed(method: Callable[..., list[Effect]]) -> Callable[..., list[Effect]]:
        def call(mesh: Mesh, *args: object) -> list[Effect]:
            effects = method(mesh, *args)
            for effect in effects:
                if isinstance(effect, Persist) and not effect.ours:
                    tell_rows("news", effect.change)
                elif isinstance(effect, Announce) and STATES in effect.tables:
                    tell_states(mesh)
            return effects

        return call

    persisted = Mesh.persisted

    def observed_persisted(mesh: Mesh, change: Change, now_s: float) -> list[Effect]:
        tell_rows("stored", change)
        return persisted(mesh, change, now_s)

    Mesh.start, Mesh.received, Mesh.woken = map(observed, (Mesh.start, Mesh.received, Mesh.woken))
    Mesh.persisted = observed_persisted


# Python runs a module of this name at every start; `up` becomes the node in a second program.
SITECUSTOMIZE = f"""from __future__ import annotations
import sys
{inspect.getsource(observe)}
if "session_mesh.nodes.becoming" in sys.orig_argv:
    observe()
"""
