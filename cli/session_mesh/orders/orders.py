"""Orders to one session or to many, and what became of them.

Invariant: with many targets one failure stops no other; the exit code is that of the worst, and
whoever could not be meant, because it was not heard or started meanwhile, is said. Interrupted, it
still tells of each target what is known.
"""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import msgspec
from msgspec.structs import replace

from meshnode.client.commands import fanning
from meshnode.client.commands.fanning import INTERRUPTED
from meshnode.client.errors import MeshError, NotFoundError, UsageError
from meshnode.client.targets.nodes import names_apart
from meshnode.client.targets.targets import Delivery, Selection, Target, has_ended
from meshnode.client.words import nearest
from session_mesh.call import Call
from session_mesh.output import words
from session_mesh.output.render import View
from session_mesh.output.tables import Table

if TYPE_CHECKING:
    from meshnode.client.commands.fanning import Act, Aimed
    from meshnode.client.mesh import MeshClient

PROGRESS_AFTER_S = 1.0
NAMED_MAX = 8  # in a question; more are listed above it
EXIT_OF_OUTCOME = {
    "accepted": 0,
    "delivered": 0,
    "applied": 0,
    "queued": 0,
    "parked": 0,
    "failed": 1,
    "indeterminate": 1,
    "unknown": 3,
    "expired": 6,
    "refused": 8,
}


class Aim(msgspec.Struct, frozen=True):
    """Who is meant: by name, or all that are selected and how much of the mesh was heard."""

    targets: Sequence["Aimed"]
    coverage: dict[str, Any] = msgspec.field(default_factory=dict)
    selection: Selection | None = None
    nothing: str = "no session matches"  # said when there is no target

    @property
    def many(self) -> bool:
        """Whether each target is told in its place."""
        return self.selection is not None or len(self.targets) > 1


def one(target: Target, spec: str, labels: Sequence[str] | None) -> Aim:
    """Aim at one session; raises UsageError when it is narrowed as only many can be."""
    if spec or labels:
        raise UsageError("--spec and --label go with --all")
    return Aim([target])


def chosen(
    mesh: "MeshClient",
    selection: Selection,
    delivery: Delivery,
    verb: str,
    *,
    unheard_too: bool = False,
) -> Aim:
    """Aim at every session that is selected and has not ended, reachable or not.

    Raises NotFoundError for a specialization that no session has, unless the sessions of nodes that
    are not heard are meant too.
    """
    if delivery.command_id:
        raise UsageError("--command-id is for one session")
    selection = replace(selection, sort="created")  # pages of it miss nobody, whoever moves
    listed = mesh.list_sessions(selection)
    aim = Aim(_living(listed), listed["coverage"], selection, f"nothing to {verb}")
    if words.is_full(aim.coverage) or not unheard_too:
        _check_known(mesh, aim)
    return aim


def _check_known(mesh: "MeshClient", aim: Aim) -> None:
    """Raise NotFoundError for a specialization that no session has, or had lately."""
    wanted = aim.selection.specialization if aim.selection else ""
    if aim.targets or not wanted:
        return
    sessions = mesh.list_sessions(Selection(filter="all"))["sessions"]
    known = {spec for session in sessions for spec in session["specializations"]}
    if wanted not in known:
        hints = ["session-mesh list --filter all shows them", *words.coverage_notes(aim.coverage)]
        said = f"nothing matched: no session has the specialization {wanted[:60]!r}"
        raise NotFoundError(f"{said}{nearest(wanted, sorted(known))}", "; ".join(hints))


def carry_out(
    call: Call, mesh: "MeshClient", aim: Aim, act: "Act", wait: str = "delivered"
) -> View:
    """Act on each target; one target's error is raised, of many each is told in its place."""
    if not aim.many:
        result = act(aim.targets[0])
        return replace(outcome_view(result), notes=_unapplied([result], wait))
    mesh.on_wait = call.say_once_that_many_wait()
    is_cut_short = False
    with _Progress(call, len(aim.targets)) as progress:
        try:
            results = fanning.fan_out(
                aim.targets, act, mesh.resolve, progress.told, progress.interrupted
            )
        except fanning.CutShortError as cut:
            results, is_cut_short = cut.results, True
    summary: dict[str, Any] = {"targets": len(results)}
    summary |= Counter(str(result["outcome"]) for result in results)
    value: dict[str, Any] = {"results": results, "summary": summary}
    notes = list(_unapplied(results, wait))
    if aim.selection is not None:
        meanwhile = [] if is_cut_short else _started_meanwhile(mesh, aim)
        summary["started_meanwhile"] = [one["session_id"] for one in meanwhile]
        value["coverage"] = aim.coverage
        notes += [*_noted(meanwhile), *words.coverage_notes(aim.coverage)]
    return View(
        value=value,
        human=Table(COLUMNS, _rows(results), aim.nothing, FLEXIBLE, SPARE, (), READABLE),
        records="results",
        ids=[str(result["session_id"] or result["target"]) for result in results],
        notes=notes,
        exit_code=INTERRUPTED if is_cut_short else _worst(results),
    )


COLUMNS = ("SESSION", "AGENT", "NODE", "OUTCOME", "DETAIL")
FLEXIBLE = ("DETAIL", "NODE", "AGENT")
SPARE = ("DETAIL", "NODE")  # whom it was about stays, and what became of it
READABLE = 16


def sessions_of(mesh: "MeshClient", aim: Aim) -> list[dict[str, Any]]:
    """Look up who is meant; raises NotFoundError or ConflictError for a name."""
    return [mesh.resolve(one) if isinstance(one, Target) else one for one in aim.targets]


def asked(call: Call, mesh: "MeshClient", aim: Aim, verb: str) -> Aim:
    """Ask once for all of them, on the terminal; raises MeshError for a no."""
    sessions = sessions_of(mesh, aim)
    if not sessions:
        return aim
    names = [f"{one['node_name']}/{one['agent_id']}" for one in sessions]
    if len(names) > NAMED_MAX:
        for name, one in zip(names, sessions, strict=True):
            call.streams.tell(f"{words.short(one['session_id'])}  {name}  {one['state']}")
        names = [f"these {len(names)} sessions"]
    for note in words.coverage_notes(aim.coverage) if aim.coverage else ():
        call.streams.tell(note)
    if not call.confirm(f"{verb} {', '.join(names)}?"):
        raise MeshError("nothing was changed")
    return replace(aim, targets=sessions)


def outcome_view(result: dict[str, Any]) -> View:
    """Show what became of one order."""
    detail = f": {result['detail']}" if result["detail"] else ""
    return View(
        value=result,
        human=f"{result['outcome']}{detail}{_processes(result)}",
        ids=[str(result["session_id"] or result["command_id"])],
        exit_code=_exit_code(result),
    )


class _Progress:
    """A line on the terminal that says how many are done, once it takes longer than a moment."""

    def __init__(self, call: Call, total: int) -> None:
        self._call = call
        self._total = total
        self._begun_at_s = call.now_s()
        self._is_shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            self._write("\r\x1b[K")

    def told(self, count: int) -> None:
        streams = self._call.streams
        late = self._call.now_s() - self._begun_at_s > PROGRESS_AFTER_S
        if streams.err_is_terminal and not streams.is_dumb and late:
            self._is_shown = True
            self._write(f"\r{count} of {self._total} done\x1b[K")

    def interrupted(self) -> None:
        if self._call.streams.err_is_terminal:
            said = "interrupted: waiting for those under way; Ctrl-C ends that wait alone"
            self._call.streams.tell(said)

    def _write(self, text: str) -> None:
        self._call.streams.err.write(text)
        self._call.streams.err.flush()


def _living(listed: dict[str, Any]) -> list[dict[str, Any]]:
    return [session for session in listed["sessions"] if not has_ended(session)]


def _started_meanwhile(mesh: "MeshClient", aim: Aim) -> list[dict[str, Any]]:
    """Return who is selected now and was not then."""
    meant = {one["session_id"] for one in aim.targets if not isinstance(one, Target)}
    try:
        present = _living(mesh.list_sessions(aim.selection))
    except MeshError:
        return []  # what was done is told all the same
    return [one for one in present if one["session_id"] not in meant]


def _noted(meanwhile: list[dict[str, Any]]) -> list[str]:
    if not meanwhile:
        return []
    names = ", ".join(f"{one['node_name']}/{one['agent_id']}" for one in meanwhile[:NAMED_MAX])
    more = f" and {len(meanwhile) - NAMED_MAX} more" if len(meanwhile) > NAMED_MAX else ""
    return [f"started meanwhile, and not meant: {names}{more}; run it again for those"]


def _rows(results: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    found = [one for one in results if "node_name" in one]  # the others are known to nobody
    names = names_apart({one["node_id"]: one["node_name"] for one in found})
    rows: list[tuple[str, ...]] = []
    for one in results:
        who = (one["target"], "", "")
        if "node_name" in one:
            who = (words.short(one["session_id"]), one["agent_id"], names[one["node_id"]])
        rows.append((*who, one["outcome"], f"{one['detail'] or ''}{_processes(one)}"))
    return rows


def _worst(results: Sequence[dict[str, Any]]) -> int:
    return max((_exit_code(result) for result in results), default=0)


def _exit_code(result: dict[str, Any]) -> int:
    return int(result.get("exit_code", EXIT_OF_OUTCOME.get(result["outcome"], 1)))


def _unapplied(results: Sequence[dict[str, Any]], wait: str) -> list[str]:
    """Say where an agent has the message and nothing tells whether it did anything with it."""
    if wait == "applied" and any(
        result["outcome"] in {"delivered", "queued"} for result in results
    ):
        return ["delivered is all that such an agent lets its node know"]
    return []


def _processes(result: dict[str, Any]) -> str:
    survivors = (result.get("processes") or {}).get("survivors") or []
    return f" (still there: {', '.join(map(str, survivors))})" if survivors else ""
