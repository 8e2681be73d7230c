"""`audit`: what a node has recorded about itself, and whether somebody has changed that since."""

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from meshnode.client.durations import parse_instant
from meshnode.client.errors import MeshError, NotFoundError, UsageError
from meshnode.client.targets.targets import Target
from meshnode.client.vocabulary import KINDS
from session_mesh.arguments.completing import among, listed
from session_mesh.arguments.options import Node, SessionId, several
from session_mesh.call import Call
from session_mesh.output import words
from session_mesh.output.render import View
from session_mesh.output.tables import Table
from session_mesh.verbs import verb

if TYPE_CHECKING:
    from meshnode.client.mesh import MeshClient
    from session_mesh.call import Reader

LIMIT = 50
LIMIT_MAX = 10_000
COLUMNS = ("SEQ", "AT", "KIND", "AGENT", "SESSION", "KEY", "ACTION", "OUTCOME", "DETAIL")
FLEXIBLE = ("DETAIL", "SESSION", "AGENT", "ACTION")
SPARE = ("SESSION", "DETAIL", "SEQ", "KEY", "ACTION", "AGENT")  # KEY is who, AGENT whom
KEY_CHARS = 8  # of an id: enough for `operator remove` and `keys revoke`


@verb(
    "session-mesh audit",
    "session-mesh audit --since 1d --kind command_executed -o json",
    "session-mesh audit --verify",
    "session-mesh audit --verify --node berta",
    "session-mesh audit --accept berta --yes",
)
def app(
    call: Call,
    verify: Annotated[
        bool, typer.Option("--verify", help="Look whether the log was changed; exit 1 if so.")
    ] = False,
    node: Node = "",
    since: Annotated[str, typer.Option("--since", help="A moment, a date, or 15m.")] = "",
    session: SessionId = "",
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="K",
            help="One kind; several: a,b.",
            autocompletion=listed(among(KINDS)),
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=LIMIT_MAX, help="The newest so many.")
    ] = LIMIT,
    accept: Annotated[
        str, typer.Option("--accept", metavar="N", help="Take a node's changed log as it is now.")
    ] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> View:
    """Show who did what at a node: commands, sessions, members, alarms.

    Another node's log is read with a signed request. --verify also names every node whose log is
    known here to have been changed; --accept forgets that, when its disk was lost or restored.
    """
    from meshnode.client.records import auditing  # noqa: PLC0415 - cryptography is slow to import

    if accept:
        return _accepted(call, accept, yes=yes)
    if verify:
        if since or session or kind:
            raise UsageError("a log is verified as a whole", "leave out --since, --session, --kind")
        value = call.read(lambda mesh: auditing.verify_audit(cast("MeshClient", mesh), node))
        own = None if node else _own_ledger(call)
        return _verdict(value | {"ledger": own})
    begin = parse_instant(since, call.now_s()) if since else None

    def read(reader: "Reader") -> dict[str, Any]:
        mesh = cast("MeshClient", reader)
        asked = min(limit + 1, LIMIT_MAX)  # one more, to know whether there is
        wanted = auditing.Wanted(node, begin, _meant(mesh, session), several(kind), asked)
        return auditing.read_audit(mesh, wanted)

    value, notes = _cut(call.read(read), limit)
    records = value["records"]
    rows = list(map(_row, records))
    table = Table(COLUMNS, rows, "nothing of that is recorded", FLEXIBLE, SPARE)
    ids = [str(one["seq"]) for one in records]
    return View(value, table, "records", ids=ids, notes=notes, fields=auditing.FIELDS)


def _cut(value: dict[str, Any], limit: int) -> tuple[dict[str, Any], list[str]]:
    """Leave the newest so many, and say that there are others, as `list` does."""
    records = value["records"]
    if len(records) < min(limit + 1, LIMIT_MAX):
        return value, []
    value = value | {"records": records[-limit:], "more": True}
    if limit == LIMIT_MAX:  # nodes tell no more at once
        fewer = "--session and --kind select among all"
        return value, [f"there may be older ones than these {limit}: {fewer}"]
    return value, [f"there are older ones than these {limit}: --limit takes up to {LIMIT_MAX}"]


def _meant(mesh: "MeshClient", session: str) -> str:
    """Return the whole id of a session, or the word itself: a log knows more than is listed."""
    try:
        return str(mesh.resolve(Target(session))["session_id"]) if session else ""
    except NotFoundError:
        return session


def _accepted(call: Call, node: str, *, yes: bool) -> View:
    from meshnode.client.records import auditing  # noqa: PLC0415 - as above

    if not yes and not call.can_ask:
        raise UsageError("what was seen is forgotten for good", "say --yes, if that is meant")
    with call.mesh() as mesh:
        if not yes and not call.confirm(f"believe the log of {node} as it is now?"):
            raise MeshError("nothing was changed")
        value = auditing.accept_log(mesh, node)
    said = f"{value['node_name']}: {value['forgotten']} heads forgotten; its log is believed anew"
    return View(value, said, ids=[value["node_id"]])


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    moment = (record["at"] or "-")[:19].replace("T", " ")
    named = ("agent_id", "session_id", "key_id", "action", "outcome", "detail")
    agent, session, key, action, outcome, detail = (record.get(name) or "" for name in named)
    shown = (agent, words.short(session), key[:KEY_CHARS], action, outcome, detail)
    return (str(record["seq"]), moment, record["kind"], *shown)


def _own_ledger(call: Call) -> dict[str, Any] | None:
    """Verify the ledger of this home, on its disk; None if there is none, or it cannot be read."""
    from meshnode.node.ledger.verifying import verify_home  # noqa: PLC0415 - needs a database, rarely

    return verify_home(call.home)


def _verdict(value: dict[str, Any]) -> View:
    """Say that a log is whole, or which record of which node is the first that is not."""
    lines = [
        f"{one['node_name']} ({words.short(one['node_id'])}): record {one['seq']}: {one['what']}"
        for one in value["wrong"]
    ]
    if value["ok"]:
        lines = [
            f"{value['node_name']}: {value['records']} records up to {value['seq']} are as written",
            f"hash {value['hash']}",
        ]
    ledger = value["ledger"]
    if ledger is not None:
        lines.append(_ledger_said(ledger))
    notes = [f"compared with heads seen of it: {value['heads']}{_newest_head(value)}"]
    if value["neighbours_heard"] < value["neighbours_asked"]:
        heard = f"{value['neighbours_heard']} of {value['neighbours_asked']}"
        notes.append(f"{heard} neighbours said what they have seen")
    ids = [f"{one['node_id']} {one['seq']}" for one in value["wrong"]]
    is_well = value["ok"] and (ledger is None or ledger["ok"])
    return View(value, tuple(lines), "", ids, notes, 0 if is_well else 1)


def _newest_head(value: dict[str, Any]) -> str:
    return f", the newest of record {value['heads_seq']}" if value["heads"] else ""


def _ledger_said(ledger: dict[str, Any]) -> str:
    if ledger["wrong"] is not None:
        return f"ledger: record {ledger['wrong']['seq']}: {ledger['wrong']['what']}"
    if not ledger["records"]:
        return "ledger: nothing is recorded"
    said = f"ledger: {ledger['records']} records up to {ledger['seq']} are as written"
    return f"{said}, {ledger['checkpoints']} checkpoints"
