"""`statusline`: one line for the bottom of Claude Code."""

import os
from pathlib import Path

from meshnode.client.errors import MeshError, NoNodeError, UsageError
from session_mesh.call import Call
from session_mesh.inside import is_inside
from session_mesh.output.render import View
from session_mesh.statusline import kept
from session_mesh.statusline.line import Figures, composed, said, transcript_in
from session_mesh.verbs import verb

INSIDE_S = 0.5  # for each of two answers
UNKNOWN: Figures = {
    "usage_read": None,
    "today": None,
    "mesh_today": None,
    "alive_sessions": None,
    "more_alive": False,
    "budgets": None,
    "coverage": None,
}


@verb("session-mesh statusline", "session-mesh statusline -o json < document.json")
def app(call: Call) -> View | int:
    """Show model, costs and context in one line, for Claude Code.

    Claude Code runs it by its setting statusLine, and writes a JSON document to its stdin. Costs
    are of the session, of today on this machine and in the mesh. No node is started or waited for,
    and no log is read for the first time: usage does that.
    """
    document, trouble = kept.document()
    if trouble:
        raise UsageError(f"{trouble}, where Claude Code writes a JSON document for statusline")
    figures = UNKNOWN | said(document) | _known(call, document)
    if call.style.format == "table" and not call.quiet:
        call.streams.out.write(composed(figures, colour=kept.has_colour(os.environ)) + "\n")
        return 0
    shown = composed(figures, colour=False)
    return View(value=figures, human=shown, ids=[figures["session_id"] or ""])


def _known(call: Call, document: Figures) -> Figures:
    """Return what the ledger and the node know: as it was kept, or anew if nobody else asks."""
    if is_inside() and not kept.place(os.environ):
        return {}
    try:
        where = Path(kept.place(os.environ)) if is_inside() else call.home.path / kept.NAME
        return _kept_at(where, call, document) if where.parent.exists() else kept.NO_HOME
    except MeshError as error:  # the home is another user's, or no directory
        call.streams.tell(f"warning: {error.message}")
        return {}


def _kept_at(where: Path, call: Call, document: Figures) -> Figures:
    from meshnode.node.ledger.latch import alone  # noqa: PLC0415 - --help needs no lock

    with alone(where.parent) as is_free:
        found = kept.read(str(where))
        if is_free and _is_refreshed(call, document, found):
            kept.write(str(where), found)
    return kept.told_of(found, document, call.now_s())


def _is_refreshed(call: Call, document: Figures, found: Figures) -> bool:
    """Ask for what has not been asked for lately; tell whether there was any."""
    now_s = call.now_s()
    own = kept.of_session(found, document, now_s)
    mesh = kept.lasting(found["mesh"], now_s)
    if own is not None and mesh is not None:
        return False
    seen = kept.seen(document)  # before it is read
    today_s = kept.midnight_s(now_s)
    if is_inside():
        news, found["mesh"] = _of_ticket(call, now_s)
    else:
        if mesh is None:
            found["mesh"] = _of_node(call, today_s, now_s)
        if own is not None:
            return True  # it was read before its transcript grew, perhaps
        news = _of_ledger(call, document, today_s, now_s)
    _keep(found, kept.key_of(document), news, {"at": now_s, "seen": seen})
    return True


def _of_ledger(call: Call, document: Figures, today_s: float, now_s: float) -> Figures | None:
    from meshnode.node.ledger.glancing import of_home  # noqa: PLC0415 - the ledger is large

    named = said(document)["session_id"] or "", transcript_in(document) or ""
    return of_home(call.home, named, today_s, now_s)


def _of_node(call: Call, today_s: float, now_s: float) -> Figures:
    """Return what is kept of the mesh: nothing, for longer, after a node that did not answer."""
    if not call.home.socket.exists():
        return {"at": now_s, "figures": {}}
    try:
        with call.mesh() as mesh:
            from meshnode.client.glance import of_mesh  # noqa: PLC0415 - as above

            return {"at": now_s, "figures": of_mesh(mesh, today_s)}
    except MeshError as error:
        return _nothing(error, now_s)


def _of_ticket(call: Call, now_s: float) -> tuple[Figures | None, Figures]:
    """Return what a ticket tells of its own session, and of the mesh: the same of none."""
    try:
        with call.inside(INSIDE_S) as inside:
            from meshnode.client.glance import of_session  # noqa: PLC0415 - as above

            own, mesh = of_session(inside)
    except MeshError as error:
        return None, _nothing(error, now_s)
    counted = own["cost_usd"] is not None and int(own["usage"]["total"]) > 0
    spent = {"session_cost_usd": own["cost_usd"], "session_cost_source": "ledger"}
    return spent if counted else {}, {"at": now_s, "figures": mesh}


def _nothing(error: MeshError, now_s: float) -> Figures:
    lasts_s = kept.LASTS_S if isinstance(error, NoNodeError) else kept.SILENT_S
    return {"at": now_s, "figures": {}, "lasts_s": lasts_s}


def _keep(found: Figures, key: str, news: Figures | None, state: Figures) -> None:
    """Put a session's figures last; without news the old ones, to be looked at again soon."""
    before = found["sessions"].pop(key, {})
    figures, read_at = before.get("figures", {}), kept.read_at(before)
    unseen = {"figures": figures, "seen": [], "read_at": read_at}
    found["sessions"][key] = state | (unseen if news is None else {"figures": news})
