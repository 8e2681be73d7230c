"""The table of all that decodes bytes from outside, and who sends them."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING

from fuzz import desks, homes, meshes
from fuzz.decoder import Decoder
from fuzz.ledgers import LEDGERS
from fuzz.logs import FROM_LOGS
from fuzz.meshes import resigned
from fuzz.records import RECORDS
from fuzz.values import (
    CHAIN,
    CHANGE,
    COMMAND_OF_USER,
    COMMAND_SIGNED,
    ENTRIES,
    FEED,
    GENESIS,
    JOIN,
    KEY,
    LEAF,
    MESSAGES,
    NODE,
    NODE_ID,
    RECEIPT,
    ROOT,
    ROWS,
    SELF_ID,
    USER,
    WHOLE,
    WORD,
)

from meshnode.app.membership.admission import packed_signed
from meshnode.client.commands import receipts
from meshnode.client.durations import parse_duration, parse_instant, seconds_of
from meshnode.core.commands.commands import COMMAND, command_from_signed, receipt_from_signed
from meshnode.core.control import grants, roles
from meshnode.core.control.entries import CONTROL, entry_id_of
from meshnode.core.errors import PeerError, UnreachableError, UsageError
from meshnode.core.feeds.feed import delta_from_bytes
from meshnode.core.feeds.headers import FLUSH, parse_header
from meshnode.core.feeds.messages import Snapshot
from meshnode.core.feeds.snapshots import hashes_from_bytes, hashes_to_bytes, rows_of
from meshnode.core.ids import node_key_of, unb32
from meshnode.core.keys import Signed, encode_checked
from meshnode.core.ledger import ledger, ledger_rows
from meshnode.core.membership import certificates, enrolment, members
from meshnode.core.membership.genesis import genesis_from_bytes
from meshnode.core.packing import pack, unpack
from meshnode.core.sessions import registry, sessions
from meshnode.core.tables import removals
from meshnode.discovery.seeds import parse_address
from meshnode.v1 import event_service_pb2 as event_pb
from meshnode.v1 import link_service_pb2 as pb
from meshnode.v1 import local_service_pb2 as local
from meshnode.wire.links import (
    Introduction,
    introduction_from_wire,
    introduction_to_wire,
    message_to_wire,
)
from meshnode.wire.signed import signed_to_wire
from meshnode.wire.times import time_from_wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.core.feeds.messages import Message


def _rows_of(table: str) -> list[tuple[bytes, bytes]]:
    return [(key, value) for name, key, value in ROWS if name == table]


def _text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda raw: read(raw.decode("utf-8", "replace"))


def _frame(message: Message) -> bytes:
    return message_to_wire(message).SerializeToString()


def _signed(kind: str, payload: bytes) -> Signed:
    return Signed(kind, payload, bytes(64))


if CHANGE.header.signed is None or CHANGE.flush is None:
    raise ValueError("a flush has a signed header")
HEADER = CHANGE.header.signed
SECRET = pack([1, USER.seed, [link.to_list() for link in KEY.chain]])
INVITED = pack([1, ROOT.public, bytes(32), NODE.public, bytes(16), bytes(16), 9, ["a:1"], True])
SLOTS, REGISTERED = _rows_of(ledger.LEDGER), _rows_of(registry.REGISTRY)[0]
REMOVED = _rows_of(removals.REMOVALS)

_ASKED = {
    "about": pack([GENESIS.mesh_id, SELF_ID, NODE_ID, 7]),
    "answer_key": USER.public,
    "command": COMMAND_SIGNED.to_list(),
    "piece": 0,
    "until_accepted": False,
}
REQUESTS = (pack(_ASKED), pack({**_ASKED, "piece": None}))
_ANSWERED = {"receipt": None, "piece": b"said", "last": True, "error": ["", "", ""]}
ANSWERS = (pack(_ANSWERED), pack({**_ANSWERED, "receipt": RECEIPT.to_list(), "piece": None}))

# MessagePack, most of it signed by whoever may be hostile.
PACKED: dict[str, Decoder] = {
    name: Decoder(decode, valid, packed=True)
    for name, decode, valid in (
        ("genesis", genesis_from_bytes, (GENESIS.to_bytes(),)),
        ("node row", members.node_from_row, (_rows_of(members.NODE)[0][1],)),
        ("links row", members.links_from_row, (_rows_of(members.LINKS)[0][1],)),
        ("session row", sessions.session_from_row, (_rows_of(sessions.SESSIONS)[0][1],)),
        (
            "registry row",
            lambda row: registry.registration_from_row(REGISTERED[0], row),
            (REGISTERED[1],),
        ),
        (
            "registry key",
            lambda key: registry.registration_from_row(key, REGISTERED[1]),
            (REGISTERED[0],),
        ),
        (
            "removals row",
            lambda both: removals.removals_from_row(*_pair(both)),
            tuple(pack(list(one)) for one in REMOVED),
        ),
        ("ledger key", ledger_rows.key_from_row, tuple(key for key, _ in SLOTS)),
        ("ledger slot", ledger_rows.slot_from_row, (SLOTS[0][1],)),
        ("ledger diagnostics", ledger_rows.diagnostics_from_row, (SLOTS[1][1],)),
        ("header", lambda payload: parse_header(_signed(FLUSH, payload)), (HEADER.payload,)),
        ("delta", lambda raw: delta_from_bytes(raw, GENESIS.limits), (CHANGE.flush.delta,)),
        (
            "snapshot",
            lambda rows: rows_of(Snapshot(CHANGE.header, rows), GENESIS.limits).state_hash(),
            (WHOLE.rows,),
        ),
        ("manifest", hashes_from_bytes, (hashes_to_bytes(FEED.rows.manifest()),)),
        (
            "grant",
            lambda payload: grants.grant_from_signed(_signed("grant", payload)),
            (KEY.chain[0].payload,),
        ),
        (
            "chain",
            lambda payload: grants.verify_chain([resigned("grant", payload)], GENESIS.mesh_id),
            (KEY.chain[0].payload,),
        ),
        (
            "command",
            lambda payload: command_from_signed(_signed(COMMAND, payload)),
            (COMMAND_SIGNED.payload,),
        ),
        (
            "receipt",
            lambda payload: receipt_from_signed(resigned("receipt", payload), NODE.public),
            (RECEIPT.payload,),
        ),
        (
            "invite authorization",
            lambda payload: roles.authorization_from_signed(resigned(roles.INVITE, payload, ROOT)),
            (WORD.payload,),
        ),
        (
            "application",
            lambda payload: enrolment.application_from_signed(resigned(enrolment.JOIN, payload)),
            (JOIN.payload,),
        ),
        (
            "session key",
            lambda body: grants.session_key_from_text("smk1_" + encode_checked(body, b"smk1")),
            (SECRET,),
        ),
        (
            "invite",
            lambda body: enrolment.invite_from_text("smj1_" + encode_checked(body, b"smj1")),
            (INVITED,),
        ),
    )
}


def _pair(both: bytes) -> tuple[bytes, bytes]:
    try:
        key, row = unpack(both)
        return bytes(memoryview(key)), bytes(memoryview(row))
    except (TypeError, ValueError) as error:
        raise PeerError("no key and row") from error


# The same, all the way into the mesh of a node: what a neighbour can do.
INTO_A_MESH: dict[str, Decoder] = {
    "frame": Decoder(meshes.frame, tuple(_frame(one) for one in MESSAGES)),
    "conversation": Decoder(
        meshes.conversation,
        (
            pack([_frame(one) for one in MESSAGES[:6]]),
            pack([_frame(one) for one in MESSAGES[6:13]]),
            pack([_frame(one) for one in MESSAGES[13:]]),
        ),
        packed=True,
    ),
    "row into a mesh": Decoder(meshes.row, tuple(pack(list(one)) for one in ROWS), packed=True),
    "header into a mesh": Decoder(meshes.header, (HEADER.payload,), packed=True),
    "delta into a mesh": Decoder(meshes.flush, (CHANGE.flush.delta,), packed=True),
    "snapshot into a mesh": Decoder(meshes.snapshot, (WHOLE.rows,), packed=True),
    "control entry": Decoder(meshes.entry, tuple(one.payload for one in ENTRIES), packed=True),
    "command into a mesh": Decoder(meshes.command, (COMMAND_SIGNED.payload,), packed=True),
    "request in its envelope": Decoder(meshes.request, REQUESTS, packed=True),
    "answer in its envelope": Decoder(meshes.answer, ANSWERS, packed=True),
    "command at its owner": Decoder(desks.command, desks.COMMANDS, packed=True),
    "invite at its desk": Decoder(desks.invite, (WORD.payload,), packed=True),
    "application at its desk": Decoder(desks.application, (JOIN.payload,), packed=True),
    "opening": Decoder(
        desks.opening,
        (pack({"agent_id": "a", "specializations": ["x"], "labels": {"a": "b"}}),),
        packed=True,
    ),
    "introduction": Decoder(
        lambda raw: introduction_from_wire(pb.Frame.FromString(raw)),
        (introduction_to_wire(Introduction(5, ("a:1",))).SerializeToString(),),
    ),
}
ENTRY = ENTRIES[0]
BLOB = [bytes(16), bytes(32), 99, RECEIPT.payload, RECEIPT.signature]
UNDONE = [
    *(COMMAND_OF_USER.command_id, COMMAND_SIGNED.hash, 99, None, None),
    *("executing", b"", COMMAND_SIGNED.payload, COMMAND_SIGNED.signature),
]
EVENT = event_pb.Event(at="2026-11-20T09:30:00Z", kind="node", op="added").SerializeToString()
DATABASE = (
    [
        ["feeds", [NODE_ID, HEADER.payload, HEADER.signature]],
        *(
            ["rows", [NODE_ID, table, key, row.epoch, row.seq, row.value, None]]
            for (table, key), row in CHANGE.rows.items()
            if row is not None
        ),
    ],
    [["control", [entry_id_of(ENTRY), CONTROL, ENTRY.payload, ENTRY.signature]]],
    [["forks", [NODE_ID, 1, *(HEADER.payload, HEADER.signature) * 2]]],
    [["events", [7, 1.5, "node", "added", '["n"]', EVENT]], ["meta", ["events_run", b"3"]]],
    [["journal", BLOB], ["meta", ["journal_generation", b"5"]]],
    [["journal", UNDONE], ["meta", ["clock_floor", b"7"]]],
    [
        [
            "invites",
            [bytes(16), bytes(16), WORD.payload, WORD.signature, "operator", 1, 9, pack({}), b""],
        ]
    ],
    [
        [
            "meta",
            [
                "events_stopped",
                b'{"last": 7, "states": {}, "pending": [], "starts": {"bbbbbbbb": 7}}',
            ],
        ]
    ],
    [
        ["usage_readers", ["higress", "0" * 16, "p", SLOTS[1][1]]],
        ["usage_places", ["higress", "0" * 16, b"", b"place"]],
        ["usage_kinds", [1, *"sopaomptfxy"]],
        ["usage_log", [1, "k", 0, 5, 1, 0, 1.5, 0, *range(7), None, b""]],
        ["usage_slots", [SLOTS[0][0], SLOTS[0][1]]],
        ["usage_slots", [SLOTS[2][0], SLOTS[2][1]]],
        ["usage_imported", [SLOTS[3][0], SLOTS[3][1]]],
    ],
)
CONFIGURATION = b"""node: atlas
listen: 127.0.0.1:7707
seeds: ["[::1]:7707", b:1]
labels: {zone: 012}
on_exit: close
mdns: off
ingest:
  - {source: higress, path: /var/log/a.log, refresh_interval: 5s}
"""
AGENTS = b"""- {spec: docs, agent_id: a, attributes: {load: "0.5"}}
- {specialization: [x, y], agent_id: b}
"""
REQUESTS = (
    local.ListSessionsRequest(filter="all", limit=5, next="5", labels={"a": "b"}),
    local.ListNodesRequest(labels={"a": "b"}),
    local.NameMemberRequest(node_id="n"),
    local.FindAgentsRequest(specialization="b"),
    local.GetCostRequest(by=["day"], since="2026-11-20T09:30:00Z", tz="Europe/Berlin"),
    local.GetCostRequest(until="2026-11-20"),
    local.ReadHeadRequest(node_id=NODE_ID),
    local.AddControlRequest(entry=signed_to_wire(ENTRY)),
    local.SubmitCommandRequest(node_id=NODE_ID, command=signed_to_wire(COMMAND_SIGNED)),
    event_pb.ListEventsRequest(since="2026-11-20T09:30:00Z", kinds=["node"]),
    event_pb.WatchRequest(position="aaaaaaaa0001000000000000bbbbbbbb", kinds=["node"]),
)
# What comes from this machine, its user, and the network around it.
FROM_HOME: dict[str, Decoder] = {
    "database": Decoder(homes.database, tuple(pack(tables) for tables in DATABASE), packed=True),
    "beginning": Decoder(
        homes.began_with,
        (pack({"facts": {"name": b"n"}, "control": [packed_signed(ENTRY)]}),),
        packed=True,
    ),
    "what a join left": Decoder(
        homes.joined_with,
        (
            pack(
                {
                    "beginning": pack({"facts": {"name": b"n"}, "control": []}),
                    "roots": b"",
                    "certificates": certificates.to_pem(CHAIN),
                    "genesis": GENESIS.to_bytes(),
                    "old": "",
                    "commands": True,
                }
            ),
        ),
        packed=True,
    ),
    "genesis of a home": Decoder(homes.genesis, (GENESIS.to_bytes(),), packed=True),
    "outbox": Decoder(homes.sent_before, (pack(COMMAND_SIGNED.to_list()),), packed=True),
    "key file": Decoder(homes.secret, (b64encode(bytes(32)) + b"\n",)),
    "configuration": Decoder(homes.configuration, (CONFIGURATION,)),
    "registrations": Decoder(homes.registrations, (AGENTS, b"spec: a")),
    "request": Decoder(
        homes.request,
        tuple(bytes([at]) + one.SerializeToString() for at, one in enumerate(REQUESTS)),
        accepts=False,
    ),
    "position": Decoder(homes.watch_position, (b"aaaaaaaa0001000000000000bbbbbbbb",)),
    "error of a node": Decoder(homes.error_of_a_node, (b'{"code":"usage","message":"no"}',), ()),
    "supervisor state": Decoder(
        homes.supervisor_state, (b'{"boot_id":"b","pid":1,"start_ticks":2}',), ()
    ),
    "supervisor request": Decoder(
        homes.supervisor_request,
        (
            b'{"id":1,"op":"steer","message":"go"}',
            b'{"id":2,"op":"inbox","after":0,"follow":true}',
            b'{"id":3,"op":"take","position":1}',
        ),
        (),
    ),
    "inbox page": Decoder(
        homes.inbox_page,
        (
            b'{"ok":true,"steers":[{"position":1,"command_id":"c","direction":null,'
            b'"message":"go","at_s":5.0}],"next":1}',
        ),
        (UnreachableError, UsageError),
    ),
    "supervisor reply": Decoder(homes.supervisor_reply, (b'{"id":1,"ok":true}\n{"id":2}\n',), ()),
    "announcement": Decoder(
        homes.announcement,
        (b"\x37id=" + NODE_ID.encode() + b"\x39mesh=" + GENESIS.mesh_id.encode(),),
        (PeerError, ValueError),
    ),
    "leaf": Decoder(certificates.hints_in, (LEAF,)),
    "pem": Decoder(certificates.from_pem, (certificates.to_pem(CHAIN[:1]),)),
    "chain of certificates": Decoder(
        homes.chain_of_certificates, (pack(list(CHAIN)),), packed=True
    ),
    "left by a stop": Decoder(
        homes.left, (b'{"last": 7, "states": {"n": "alive"}, "pending": [["n", "s", "m"]]}',), ()
    ),
    "fact": Decoder(homes.fact, (b'{"a": "b"}', b'{"a": ["b:1"]}'), accepts=False),
    "node id": Decoder(_text(node_key_of), (NODE_ID.encode(),)),
    "base32": Decoder(_text(unb32), (b"abcdefgh",)),
    "dns name": Decoder(
        _text(certificates.node_id_in), (certificates.dns_name_of(NODE_ID).encode(),)
    ),
    "session key text": Decoder(
        _text(grants.session_key_from_text), (b"smk1_" + encode_checked(SECRET, b"smk1").encode(),)
    ),
    "receipt text": Decoder(
        receipts.receipt_in,
        (b64encode(pack(["receipt", RECEIPT.payload, RECEIPT.signature])),),
    ),
    "invite text": Decoder(
        _text(enrolment.invite_from_text), (b"smj1_" + encode_checked(INVITED, b"smj1").encode(),)
    ),
    "time": Decoder(_text(time_from_wire), (b"2026-11-20T09:30:00Z",)),
    "time of an answer": Decoder(_text(seconds_of), (b"2026-11-20T09:30:00Z",)),
    "moment": Decoder(_text(lambda text: parse_instant(text, 1.0)), (b"7d ago", b"2026-11-20")),
    "duration": Decoder(_text(parse_duration), (b"90", b"15m")),
    "address": Decoder(_text(parse_address), (b"a:1", b"[::1]:7707")),
}
DECODERS = PACKED | INTO_A_MESH | FROM_HOME | FROM_LOGS | RECORDS | LEDGERS
