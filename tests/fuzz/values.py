"""Valid values of every kind that travels, made alike each time: what decoders are tried with."""

from __future__ import annotations

from random import Random

from meshnode.core.commands.commands import Command, Receipt, sign_command, sign_receipt
from meshnode.core.control import entries, grants, roles
from meshnode.core.control.entries import (
    Cancel,
    Forget,
    Revoke,
    StandingKill,
    role_entry,
    sign_entry,
)
from meshnode.core.control.settings import Budget, Policy, Terms
from meshnode.core.feeds.heads import Head
from meshnode.core.feeds.messages import (
    Ask,
    BucketHashes,
    BucketPull,
    BucketRows,
    Digest,
    Farewell,
    Fork,
    Have,
    Heard,
    Manifest,
    Members,
    Order,
    Prune,
    Pull,
    Pulse,
    Reply,
    Routed,
    Snapshot,
    Vector,
)
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.feeds.snapshots import whole
from meshnode.core.ids import SessionId, node_id_of
from meshnode.core.keys import Key
from meshnode.core.ledger.ledger import LEDGER, Buckets, Diagnostics, DiagnosticsKey, Slot, SlotKey
from meshnode.core.ledger.ledger_rows import diagnostics_to_row, key_to_row, slot_to_row
from meshnode.core.membership import certificates, enrolment, members
from meshnode.core.membership.genesis import Genesis
from meshnode.core.membership.members import LINKS, ONLY_ROW
from meshnode.core.periods import DayKey, MonthKey
from meshnode.core.sessions import registry
from meshnode.core.sessions.registry import REGISTRY
from meshnode.core.sessions.sessions import SESSIONS, SessionRecord, State, session_to_row
from meshnode.core.summary import BUCKETS
from meshnode.core.tables import removals
from meshnode.core.tables.removals import REMOVALS

chance = Random(10).randbytes
ROOT, NODE, USER = (Key.new(chance) for _ in range(3))
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
NODE_ID = node_id_of(NODE.public)
INVITE = enrolment.Invite(
    ROOT.public, GENESIS.mesh_id, NODE_ID, bytes(16), bytes(16), 9, ("a:1",), commands=True
)
KEY = grants.SessionKey(
    USER,
    (
        grants.grant(
            NODE,
            grants.Grant(
                GENESIS.mesh_id,
                NODE.public,
                USER.public,
                ("read", "steer", "kill", "register"),
                0,
                9,
                bytes(16),
                nodes=(NODE_ID,),
            ),
        ),
    ),
)
WORD = roles.authorize(
    ROOT,
    roles.Authorization(GENESIS.mesh_id, bytes(16), NODE_ID, "operator", 1, 0, 9, b""),
)
ROLE = entries.role_entry(
    NODE,
    GENESIS.mesh_id,
    roles.Role(USER.public, "operator", "", NODE.public, 5, WORD),
    chance,
)
FEED = OwnFeed(NODE, GENESIS.mesh_id, GENESIS.limits, 5)
for number in range(3):
    FEED.write("notes", b"%d" % number, b"value")
CHANGE = FEED.flush(1.0)
if CHANGE is None or CHANGE.flush is None or CHANGE.header.signed is None:
    raise ValueError("a feed with writes has a flush")
WHOLE = whole(CHANGE.header, FEED.rows)
if not isinstance(WHOLE, Snapshot):
    raise TypeError("a small feed is sent whole")
RECORD = SessionRecord(SessionId("s"), 1, "a", State.IDLE, 1.0, 2.0, labels={"a": "b"})
COMMAND_OF_USER = Command(GENESIS.mesh_id, bytes(16), NODE_ID, "s", 1, "steer", 1, 2, args={"a": 1})
COMMAND_SIGNED = sign_command(KEY, COMMAND_OF_USER)
RECEIPT = sign_receipt(
    NODE, Receipt(GENESIS.mesh_id, bytes(16), bytes(32), NODE_ID, "s", "applied", 1.0)
)
JOIN = enrolment.apply_with(NODE, USER, INVITE, "n", bytes(8))
SPECIALIST = registry.specialist("a", "b", {"c": "d"})
BIRTH = registry.Birth(7, 1)
ADMITTER = certificates.issue_admitter(ROOT, GENESIS.mesh_id, NODE_ID, 1e9, chance)
CHAIN = (certificates.issue_node_ca(NODE, NODE_ID, 1e9, chance), ADMITTER)
LEAF = certificates.from_pem(
    certificates.issue_leaf(NODE, GENESIS.mesh_id, CHAIN, 1e9, chance).chain
)[0]


WALL_S = 1_790_000_000.0  # when nodes of tests live
SOON_S = int(WALL_S) + 3600
SELF_ID = node_id_of(ROOT.public)  # of the node that takes all this
ADMIN_ROLE, NODE_ROLE = (
    role_entry(ROOT, GENESIS.mesh_id, roles.Role(key, role, "", ROOT.public, 5, None), chance)
    for key, role in ((USER.public, "admin"), (NODE.public, "operator"))
)
BODIES = (
    (roles.Role(NODE.public, "operator", "", USER.public, int(WALL_S), None), None),
    (Revoke("grant", bytes(16)), SOON_S),
    (StandingKill(agent="a", node=NODE_ID), SOON_S),
    (Cancel(bytes(16)), SOON_S),
    (Policy("p", {"a": 1, "b": True, "c": "d"}), None),
    (Budget("b", Terms(5, "tokens", "day", "kill")), None),
    (Forget(CHANGE.header), None),
)
ENTRIES = (
    ROLE,
    *(
        sign_entry(USER, GENESIS.mesh_id, body, chance, issued_s=int(WALL_S), expires_s=expires_s)
        for body, expires_s in BODIES
    ),
)
MESSAGES = (
    Pulse(1),
    CHANGE.flush,
    WHOLE,
    Manifest(CHANGE.header, FEED.rows.manifest()),
    BucketPull(NODE_ID, CHANGE.header.head, {"notes": [0, 255]}),
    BucketRows(NODE_ID, WHOLE.rows, last=True),
    Fork((CHANGE.header,)),
    Digest(bytes(16), bytes(16), 7, asks=True),
    BucketHashes((bytes(8),) * BUCKETS, (bytes(8),) * BUCKETS),
    Vector(
        {NODE_ID: CHANGE.header.head},
        frozenset({bytes(16)}),
        frozenset({0, BUCKETS - 1}),
        frozenset({1}),
        {NODE_ID: bytes(8)},
    ),
    Have({NODE_ID: CHANGE.header.head}),
    Pull({NODE_ID: CHANGE.header.head}, frozenset({bytes(16)}), graft=True),
    Prune(frozenset({NODE_ID})),
    *(
        Routed((NODE_ID, SELF_ID), 1, body)
        for body in (
            Ask(NODE_ID),
            Heard(NODE_ID, 0.5),
            Order(7, b"sealed"),
            Reply(7, b"sealed", ("refused", "no", "ask again")),
        )
    ),
    ROLE,
    Members({NODE_ID: ("a:1",)}),
    Farewell("good bye"),
)
DOT = removals.Dot(NODE_ID, Head(1, 2), BIRTH)
READER = DiagnosticsKey("higress", "0" * 16)
SLOT_KEY = SlotKey("s", "gpt-4o", "standard", 990_000)
ROLLED_UP = (DayKey("s", "gpt-4o", "standard", 20_625), MonthKey("s", "o1", "batch>128000", 665))
ROWS: tuple[tuple[str, bytes, bytes], ...] = (
    (
        members.NODE,
        ONLY_ROW,
        members.node_to_row(members.NodeRecord("n", ("a:1",), labels={"a": "b"})),
    ),
    (
        members.NODE,
        ONLY_ROW,
        members.node_to_row(members.NodeRecord("n", ("a:1",), certificates=CHAIN)),
    ),
    (
        LINKS,
        ONLY_ROW,
        members.links_to_row(members.LinksRecord(frozenset({b"12345678"}), {b"1": "reset"})),
    ),
    (SESSIONS, b"s", session_to_row(RECORD)),
    (REGISTRY, registry.registry_key(SPECIALIST.place), registry.registry_row(SPECIALIST, BIRTH)),
    (REMOVALS, removals.removal_key(SPECIALIST.place), removals.removal_row([DOT])),
    (REMOVALS, removals.answer_key(SPECIALIST.place), removals.answer_row([BIRTH])),
    (REMOVALS, removals.after_key(NODE_ID), removals.after_row(CHANGE.header)),
    (LEDGER, key_to_row(SLOT_KEY), slot_to_row(Slot(1, Buckets(input=5, output=6)))),
    (LEDGER, key_to_row(READER), diagnostics_to_row(Diagnostics(records=1))),
    *((LEDGER, key_to_row(key), slot_to_row(Slot(2, Buckets(output=7)))) for key in ROLLED_UP),
)
