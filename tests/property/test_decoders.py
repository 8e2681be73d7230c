"""Every decoder is total: any bytes give a value or an error with a name, never another one."""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.core import (
    certificates,
    control,
    enrolment,
    entries,
    grants,
    members,
    registry,
    removals,
    roles,
    sessions,
)
from meshnode.core.commands import (
    COMMAND,
    Command,
    Receipt,
    command_from_signed,
    receipt_from_signed,
    sign_command,
    sign_receipt,
)
from meshnode.core.errors import MeshError, PeerError
from meshnode.core.feed import Flush, delta_from_bytes
from meshnode.core.genesis import Genesis, genesis_from_bytes
from meshnode.core.headers import FLUSH, Head, parse_header
from meshnode.core.ids import NodeId, SessionId, node_id_of, node_key_of, unb32
from meshnode.core.keys import Key, Signed, encode_checked
from meshnode.core.ledger import diagnostics_from_row, key_from_row, slot_from_row
from meshnode.core.messages import (
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
from meshnode.core.own_feed import OwnFeed
from meshnode.core.packing import pack, unpack, unpack_map
from meshnode.core.reconcile import Replication
from meshnode.core.sessions import SessionRecord, State
from meshnode.core.snapshots import hashes_from_bytes, hashes_to_bytes, rows_of, whole
from meshnode.core.summary import BUCKETS
from meshnode.v1 import link_service_pb2 as pb
from meshnode.wire.links import (
    Introduction,
    introduction_from_wire,
    introduction_to_wire,
    message_from_wire,
    message_to_wire,
)

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
                GENESIS.mesh_id, NODE.public, USER.public, ("read",), 0, 9, bytes(16), nodes=("n",)
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
COMMAND_SIGNED = sign_command(
    KEY, Command(GENESIS.mesh_id, bytes(16), NODE_ID, "s", 1, "steer", 1, 2, args={"a": 1})
)
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


def add_control(payload: bytes) -> object:
    held = control.ControlSet(GENESIS)
    added = held.add(resigned(entries.CONTROL, payload), 0.0)
    return added, held.role_of(USER.public)


def resigned(kind: str, payload: bytes, key: Key = NODE) -> Signed:
    """Sign whatever it is with the key that it names: a hostile member can."""
    return Signed(kind, payload, key._private.sign(b"smesh/v1/" + kind.encode() + b"\0" + payload))


def received(frame: bytes) -> object:
    """Take a frame as a node does: decode, then let the cores have it."""
    message = message_from_wire(pb.Frame.FromString(frame), GENESIS.mesh_id)
    own = OwnFeed(ROOT, GENESIS.mesh_id, GENESIS.limits, 6)
    held = Replication(GENESIS, own, control.ControlSet(GENESIS))
    handlers: dict[type, Callable[[Any], object]] = {
        Flush: lambda flush: held.on_flush(NODE_ID, flush, 0.0),
        Snapshot: lambda snapshot: held.on_snapshot(NODE_ID, snapshot, 0.0),
        Manifest: lambda manifest: held.on_manifest(NODE_ID, manifest, 0.0),
        BucketPull: lambda pull: held.on_bucket_pull(NODE_ID, pull),
        BucketRows: lambda rows: held.on_bucket_rows(NODE_ID, rows, 0.0),
        Fork: lambda fork: held.on_fork(NODE_ID, fork, 0.0),
        Digest: lambda digest: held.on_digest(NODE_ID, digest),
        Vector: lambda vector: held.on_vector(NODE_ID, vector, 0.0),
        Pull: lambda pull: held.on_pull(NODE_ID, pull),
        Signed: lambda entry: held.on_control(entry, 0.0),
    }
    return handlers.get(type(message), lambda other: other)(message)


def frame_of(message: Any) -> bytes:
    return message_to_wire(message).SerializeToString()


Decoder = tuple[Callable[[bytes], object], bytes]
PACKED: dict[str, Decoder] = {  # those whose bytes are MessagePack, with valid ones
    "genesis": (genesis_from_bytes, GENESIS.to_bytes()),
    "node row": (
        members.node_from_row,
        members.node_to_row(members.NodeRecord("n", ("a:1",), labels={"a": "b"})),
    ),
    "links row": (
        members.links_from_row,
        members.links_to_row(members.LinksRecord(frozenset({b"12345678"}), {b"1": "reset"})),
    ),
    "session row": (sessions.session_from_row, sessions.session_to_row(RECORD)),
    "registry row": (
        lambda row: registry.registration_from_row(registry.registry_key(SPECIALIST.place), row),
        registry.registry_row(SPECIALIST, BIRTH),
    ),
    "registry key": (
        lambda key: registry.registration_from_row(key, registry.registry_row(SPECIALIST, BIRTH)),
        registry.registry_key(SPECIALIST.place),
    ),
    "removal": (
        lambda row: removals.removals_from_row(removals.removal_key(SPECIALIST.place), row),
        removals.removal_row([removals.Dot(NodeId("n"), Head(1, 2), BIRTH)]),
    ),
    "header": (
        lambda payload: parse_header(Signed(FLUSH, payload, bytes(64))),
        CHANGE.header.signed.payload,
    ),
    "delta": (lambda delta: delta_from_bytes(delta, GENESIS.limits), CHANGE.flush.delta),
    "snapshot": (
        lambda rows: rows_of(Snapshot(CHANGE.header, rows), GENESIS.limits).state_hash(),
        WHOLE.rows,
    ),
    "manifest": (hashes_from_bytes, hashes_to_bytes(FEED.rows.manifest())),
    "grant": (
        lambda payload: grants.grant_from_signed(Signed("grant", payload, bytes(64))),
        KEY.chain[0].payload,
    ),
    "chain": (
        lambda payload: grants.verify_chain([resigned("grant", payload)], GENESIS.mesh_id),
        KEY.chain[0].payload,
    ),
    "command": (
        lambda payload: command_from_signed(Signed(COMMAND, payload, bytes(64))),
        COMMAND_SIGNED.payload,
    ),
    "receipt": (
        lambda payload: receipt_from_signed(resigned("receipt", payload), NODE.public),
        RECEIPT.payload,
    ),
    "invite authorization": (
        lambda payload: roles.authorization_from_signed(resigned(roles.INVITE, payload, ROOT)),
        WORD.payload,
    ),
    "control entry": (add_control, ROLE.payload),
    "application": (
        lambda payload: enrolment.application_from_signed(resigned(enrolment.JOIN, payload)),
        JOIN.payload,
    ),
    "ledger key": (key_from_row, pack(["slot", "s", "m", "standard", 1])),
    "ledger slot": (slot_from_row, pack([1, [1] * 7, "", "", "", ""])),
    "ledger diagnostics": (diagnostics_from_row, pack({"records": 1})),
    "session key": (
        lambda body: grants.session_key_from_text("smk1_" + encode_checked(body, b"smk1")),
        pack([1, USER.seed, [link.to_list() for link in KEY.chain]]),
    ),
    "invite": (
        lambda body: enrolment.invite_from_text("smj1_" + encode_checked(body, b"smj1")),
        pack([1, ROOT.public, bytes(32), NODE.public, bytes(16), bytes(16), 9, ["a:1"], True]),
    ),
}
FRAMES: dict[str, Decoder] = {
    type(message.body if isinstance(message, Routed) else message).__name__: (
        received,
        frame_of(message),
    )
    for message in (
        Pulse(1),
        CHANGE.flush,
        WHOLE,
        Manifest(CHANGE.header, FEED.rows.manifest()),
        BucketPull(NODE_ID, CHANGE.header.head, {"notes": [0, 255]}),
        BucketRows(NODE_ID, WHOLE.rows, last=True),
        Fork((CHANGE.header,)),
        Digest(bytes(16), bytes(16), 7),
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
            Routed((NODE_ID, NODE_ID), 1, body)
            for body in (
                Ask(NODE_ID),
                Heard(NODE_ID, 0.5),
                Order(7, ROLE),
                Reply(7, ROLE, ("refused", "no", "ask again")),
            )
        ),
        ROLE,
        Members({NODE_ID: ("a:1",)}),
        Farewell("good bye"),
    )
} | {
    "Introduction": (
        lambda frame: introduction_from_wire(pb.Frame.FromString(frame)),
        introduction_to_wire(Introduction(5, ("a:1",))).SerializeToString(),
    )
}
OTHERS: dict[str, Decoder] = {
    "leaf": (certificates.hints_in, LEAF),
    "pem": (certificates.from_pem, certificates.to_pem(CHAIN[:1])),
    "node id": (lambda raw: node_key_of(raw.decode("latin-1")), NODE_ID.encode()),
    "base32": (lambda raw: unb32(raw.decode("latin-1")), b"abcdefgh"),
    "dns name": (
        lambda raw: certificates.node_id_in(raw.decode("latin-1")),
        certificates.dns_name_of(NODE_ID).encode(),
    ),
}
DECODERS = PACKED | FRAMES | OTHERS
odd_values = st.sampled_from(
    [
        None,
        True,
        -1,
        0,
        1 << 40,
        (1 << 64) - 1,
        -(1 << 63),
        1.5,
        float("nan"),
        float("inf"),
        "",
        "text",
        b"",
        bytes(32),
        b"\xff" * 64,
        [],
        [None],
        [[b"a", b"b"]],
        {},
        {"a": 1},
    ]
)


def decode(decoder: Callable[[bytes], object], raw: bytes) -> None:
    try:
        decoder(raw)
    except (MeshError, DecodeError):
        return


def mutated(raw: bytes, rng: Random) -> bytes:
    changed = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 5])):
        place = rng.randrange(len(changed) + 1)
        match rng.randrange(4):
            case 0 if place < len(changed):
                changed[place] ^= 1 << rng.randrange(8)
            case 1 if place < len(changed):
                changed[place] = rng.randrange(256)
            case 2:
                changed[place:place] = rng.randbytes(rng.choice([1, 2, 9]))
            case _:
                del changed[place : place + rng.choice([1, 2, 9])]
    return bytes(changed)


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_valid_decodes(name: str):
    decoder, valid = DECODERS[name]
    if not name.startswith("ledger"):  # their own tests know their rows
        decoder(valid)


@pytest.mark.parametrize("name", DECODERS)
def test_arbitrary_bytes_decode_or_fail_by_name(name: str):
    decoder, _ = DECODERS[name]

    @settings(max_examples=60, deadline=None)
    @given(st.binary(max_size=200))
    def check(raw: bytes) -> None:
        decode(decoder, raw)

    check()


@pytest.mark.parametrize("name", DECODERS)
def test_valid_bytes_that_were_touched_decode_or_fail_by_name(name: str):
    decoder, valid = DECODERS[name]
    rng = Random(name)
    for _ in range(300):
        decode(decoder, mutated(valid, rng))


@pytest.mark.parametrize("name", PACKED)
def test_any_value_in_any_place_decodes_or_fails_by_name(name: str):
    decoder, valid = PACKED[name]
    value = unpack(valid)

    @settings(max_examples=120, deadline=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        odd = data.draw(odd_values)
        decode(decoder, pack(replaced(value, odd, data)))

    check()


def replaced(value: Any, odd: object, data: st.DataObject) -> Any:
    """Put an odd value in place of some part of a value, however deep."""
    if isinstance(value, dict) and value and data.draw(st.booleans() | st.just(value=True)):
        key = data.draw(st.sampled_from(sorted(value, key=repr)))
        if data.draw(st.integers(0, 9)) == 0:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: replaced(value[key], odd, data)}
    if isinstance(value, list) and value and data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(value) - 1))
        return [*value[:place], replaced(value[place], odd, data), *value[place + 1 :]]
    return odd


def test_hostile_entries_of_the_control_set_do_not_break_whoever_asks_for_roles():
    value = unpack_map(ROLE.payload)
    for via in ([b"\xc0", bytes(64)], [pack({"id": 1 << 62}), bytes(64)], [b"", b""]):
        with pytest.raises(PeerError, match="role"):
            add_control(pack({**value, "via": via}))
