"""`keys`: session keys for scripts, services and other people."""

import os
import re
from collections.abc import Sequence
from getpass import getpass
from typing import Annotated, Any

import typer

from meshnode.client.durations import parse_duration
from meshnode.client.errors import NoNodeError, SilentNodeError, UsageError
from meshnode.client.vocabulary import ACTION_MEANINGS, ACTIONS
from session_mesh.arguments.completing import among, listed
from session_mesh.arguments.options import Specializations, several
from session_mesh.arguments.stdin import on_terminal, read_text
from session_mesh.call import Call
from session_mesh.output import words
from session_mesh.output.render import View
from session_mesh.output.tables import Table
from session_mesh.verbs import leading_verb, verb

TEXT_CHARS_MAX = 25_000  # a key has 24 KiB at most
COLUMNS = ("KEY", "LABEL", "STATE", "EXPIRES", "MAY", "WHERE")
FLEXIBLE = ("WHERE", "MAY", "LABEL")
_KEY_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
LINK_COLUMNS = ("ISSUER", "SUBJECT", "MAY", "WHERE", "FROM", "UNTIL")


@leading_verb("session-mesh keys", "session-mesh keys list -o json")
def app(call: Call) -> View:
    """Make, list, inspect and revoke session keys: what SESSION_API_KEY holds.

    Alone it lists the keys that this home has made.
    """
    return _listed(call)


@verb(
    "export SESSION_API_KEY=$(session-mesh keys new --ttl 8h)",
    "session-mesh keys new --action read --action steer --spec review -o json",
    "session-mesh keys new --renewable --ttl 30d --label nightly",
    app=app,
    told=("Actions", tuple(ACTION_MEANINGS.items())),
)
def new(
    call: Call,
    ttl: Annotated[str, typer.Option("--ttl", metavar="D", help="1 s to 30 days.")] = "1h",
    action: Annotated[
        list[str] | None,
        typer.Option(
            "--action",
            metavar="ACTION",
            help="What it may do, of those above, as a,b. Else read, steer, kill, register: no"
            " output is read with it.",
            autocompletion=listed(among(sorted(ACTIONS))),
        ),
    ] = None,
    spec: Specializations = None,
    agent_id: Annotated[
        list[str] | None,
        typer.Option("--agent-id", metavar="A", help="Only this agent; repeat for more."),
    ] = None,
    node: Annotated[
        list[str] | None,
        typer.Option("--node", metavar="N", help="Only on this node; several: a,b."),
    ] = None,
    via: Annotated[
        str, typer.Option("--via", metavar="NODE", help="Only delivered by this node.")
    ] = "",
    renewable: Annotated[
        bool,
        typer.Option("--renewable", help="It makes such keys, and does nothing else."),
    ] = False,
    label: Annotated[str, typer.Option("--label", metavar="TEXT", help="What it is for.")] = "",
) -> View:
    """Make a session key. No node needs to run.

    It is made from the operator identity of this home, or, with SESSION_API_KEY set, from that key:
    narrower, and for no longer. The key alone goes to stdout, also with -q. Whoever has it can use
    it until it expires or is revoked.
    """
    from meshnode.client import clock  # noqa: PLC0415 - cryptography is slow to import
    from meshnode.client.keys import keyring  # noqa: PLC0415 - cryptography is slow to import
    from meshnode.client.keys.authority import Scope  # noqa: PLC0415 - as above

    scope = Scope(
        actions=several(action),
        nodes=_node_ids(call, several(node)) if node else None,
        agents=tuple(agent_id) if agent_id else None,
        specializations=several(spec) if spec else None,
        via=_node_ids(call, [via])[0] if via else "",
    )
    maker = keyring.Maker(call.home, os.environ, call.now_s(), clock.chance)
    made = maker.make(keyring.Wish(scope, parse_duration(ttl), label, renewable))
    may = "make keys for" if renewable else "may"
    notes = [f"key {made['key_id']} {may} {_may(made)} until {made['expires_at']}"]
    return View(value=made, human=made["key"], ids=[made["key"]], notes=notes)


@verb("session-mesh keys list", "session-mesh keys list -o json", app=app)
def list_(call: Call) -> View:
    """List the keys that this home has made; never the keys themselves.

    Whether a key was revoked elsewhere is known while a node runs.
    """
    return _listed(call)


@verb(
    "session-mesh keys inspect - < key.txt",
    'printf %s "$SESSION_API_KEY" | session-mesh keys inspect - -o json',
    app=app,
)
def inspect(
    call: Call,
    key: Annotated[str, typer.Argument(metavar="KEY|-", help="A session key; - reads stdin.")],
) -> View:
    """Show what a session key may do, where and until when; never the key itself.

    It is decoded here. If a node runs on this home, it says what the key is worth.
    """
    from meshnode.client.keys import keyring  # noqa: PLC0415 - cryptography is slow to import

    text = _text(key, "give the key itself, or - and the key on stdin")
    if _KEY_ID.fullmatch(text):
        raise UsageError(
            "that is the id of a key, and no key", "what is known by id: session-mesh keys list"
        )
    value, notes = keyring.inspect(text), []
    try:
        with call.mesh() as mesh:
            value["verdict"] = keyring.verdict_of(mesh, text)
    except (NoNodeError, SilentNodeError):
        notes = ["no node answers: whether it is revoked is not known here"]
    state = value["verdict"]["state"] if value["verdict"] else "not judged"
    rows = [_link_row(link) for link in value["links"]]
    may = "may make keys for" if value["renewable"] else "may"
    notes.insert(
        0, f"key {value['key_id']} ({state}) {may} {_may(value)} until {value['expires_at']}"
    )
    return View(value, Table(LINK_COLUMNS, rows), ids=[value["key_id"]], notes=notes)


@verb(
    "session-mesh keys revoke 4f0c21aa9be0d377",
    "session-mesh keys revoke - < key.txt",
    app=app,
)
def revoke(
    call: Call,
    key: Annotated[
        str, typer.Argument(metavar="KEY_ID|KEY|-", help="From keys list; - reads the key itself.")
    ],
) -> View:
    """Revoke a session key, and all that were made of it, on all nodes.

    It is for good: the revocation outlasts the key.
    """
    from meshnode.client.keys import keyring  # noqa: PLC0415 - cryptography is slow to import

    with call.mesh() as mesh:
        value = keyring.revoke(mesh, _text(key, "give its id, or - and the key on stdin"))
    return View(value=value, human=f"revoked: {value['key_id']}", ids=[value["key_id"]])


def _text(word: str, hint: str) -> str:
    if word == "-" and on_terminal():
        text = getpass("paste the key (it is not shown), then Enter: ").strip()
    else:
        text = (read_text(TEXT_CHARS_MAX, "the key") if word == "-" else word).strip()
    if not text:
        raise UsageError("which key?", hint)
    return text


def _may(key: dict[str, Any]) -> str:
    actions = [action for action in key["actions"] if action != "keys"]
    return ", ".join(actions) or "nothing"


def _where(key: dict[str, Any]) -> str:
    named = ("nodes", "agents", "sessions", "specializations")
    limits = [f"{name} {','.join(key[name])}" for name in named if key[name] is not None]
    return "; ".join([*limits, *([f"via {key['via']}"] if key["via"] else [])]) or "anywhere"


def _row(key: dict[str, Any]) -> tuple[str, ...]:
    may = f"makes keys: {_may(key)}" if key["renewable"] else _may(key)
    label = key["label"] or "-"
    return (key["key_id"], label, key["state"], key["expires_at"], may, _where(key))


def _link_row(link: dict[str, Any]) -> tuple[str, ...]:
    may = ", ".join(link["actions"]) or "nothing"
    span = (link["not_before"], link["expires_at"])
    return (words.short(link["issuer"]), words.short(link["subject"]), may, _where(link), *span)


def _node_ids(call: Call, names: Sequence[str]) -> tuple[str, ...]:
    """Grants name nodes by id; only the mesh knows which names they have."""
    from meshnode.client.targets.nodes import node_id_in  # noqa: PLC0415 - few keys are for a node

    nodes = call.read(lambda mesh: mesh.nodes())["nodes"]
    return tuple(node_id_in(nodes, name) for name in names)


def _listed(call: Call) -> View:
    from meshnode.client.keys import keyring  # noqa: PLC0415 - cryptography is slow to import

    found, notes = keyring.listed(call.home, call.now_s()), []
    try:
        with call.mesh() as mesh:
            found = keyring.with_verdicts(mesh, call.home, found)
    except (NoNodeError, SilentNodeError):
        notes = ["no node answers: what others have revoked is not known here"]
    table = Table(COLUMNS, [_row(key) for key in found], "no keys were made here", FLEXIBLE)
    ids = [key["key_id"] for key in found]
    fields = keyring.FIELDS
    return View({"keys": found}, table, records="keys", ids=ids, notes=notes, fields=fields)
