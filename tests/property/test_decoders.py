"""Every decoder is total: any bytes give a value or an error with a name, never another one.

What comes from outside, and the decoder of `fuzz.decoders` that takes it. All of them go through
all tests of this module and of test_corpus; test_entries and test_packing know more about theirs.

| from whom | what | decoders |
|---|---|---|
| a neighbour | frames, into a Mesh and its timers | frame, conversation, introduction |
| | signed headers, and what they prove | header, delta, snapshot, manifest, each also into a mesh |
| | rows of every table | node, links, session, registry, removals, ledger; row into a mesh |
| | control entries of every kind | control entry |
| | commands, what authorizes them | command, also into a mesh, at its owner; grant, chain |
| | the owner's answer | receipt, error of a node; rounds head, round line |
| | a ledger of ours that our disk has lost | lost ledger |
| a stranger | enrolment | application, invite authorization, each also at its desk |
| | certificates | chain of certificates, leaf, pem, dns name, node id |
| | mDNS TXT records | announcement |
| the user | words | session key, invite, both as text; time, moment, duration, address |
| | files | configuration, registrations |
| | requests on the local socket | request, position, opening |
| the home | keys, genesis, beginning, outbox | key file, genesis, beginning, outbox |
| | what a join left to do | what a join left |
| | SQLite rows: feeds, control, forks, journal, invites, ledger | database |
| | SQLite rows: events, meta | database, fact, left by a stop |
| | SQLite values: rounds, checkpoints | round texts, ledger checkpoint |
| a supervisor | lines both ways, state.json | supervisor reply, request, state |
| a gateway | usage log lines, and how far they were read | usage line, reader position |
"""

from random import Random
from typing import Any

import pytest
from fuzz import corpus
from fuzz.decoders import DECODERS, INTO_A_MESH, PACKED
from fuzz.meshes import Taking, entry
from fuzz.values import MESSAGES, ROLE
from hypothesis import given, settings
from hypothesis import strategies as st

from meshnode.core.packing import pack, unpack, unpack_map
from meshnode.v1 import link_service_pb2 as pb

# Of certificates that nobody sane has made; one day the library refuses them.
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")
_SENT = [pb.Frame.FromString(raw) for raw in INTO_A_MESH["frame"].valid]
KINDS = (  # the kinds of frames, and of bodies on a route, that there is a valid one of
    {"introduction", *(one.WhichOneof("kind") for one in _SENT)},
    {one.routed.WhichOneof("body") for one in _SENT if one.WhichOneof("kind") == "routed"},
)
WHATEVER = sorted(DECODERS)
TOUCHED = 60  # mutations of each valid value
odd_values = st.sampled_from(corpus.ODD)


@pytest.mark.parametrize("name", WHATEVER)
def test_what_is_valid_decodes(name: str):
    decoder = DECODERS[name]
    for valid in decoder.valid:
        if decoder.accepts:
            decoder.decode(valid)
        else:
            decoder.outcome(valid)


@pytest.mark.parametrize("name", WHATEVER)
def test_arbitrary_bytes_decode_or_fail_by_name(name: str):
    @settings(max_examples=60)
    @given(st.binary(max_size=200))
    def check(raw: bytes) -> None:
        DECODERS[name].outcome(raw)

    check()


@pytest.mark.parametrize("name", WHATEVER)
def test_valid_bytes_that_were_touched_decode_or_fail_by_name(name: str):
    decoder, rng = DECODERS[name], Random(name)
    for valid in decoder.valid:
        for _ in range(TOUCHED):
            decoder.outcome(corpus.mutated(valid, decoder.valid, rng, packed=False))


@pytest.mark.parametrize("name", PACKED)
def test_any_value_in_any_place_decodes_or_fails_by_name(name: str):
    decoder = DECODERS[name]
    values = [unpack(valid) for valid in decoder.valid]

    @settings(max_examples=120)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        value = data.draw(st.sampled_from(values))
        changed = replaced(value, data.draw(odd_values), data)
        try:
            raw = pack(changed)
        except (TypeError, ValueError):  # keys of several kinds, or no UTF-8
            return
        decoder.outcome(raw)

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


def test_every_kind_of_frame_and_of_route_is_tried():
    frames = {one.name for one in pb.Frame.DESCRIPTOR.oneofs_by_name["kind"].fields}
    bodies = {one.name for one in pb.Routed.DESCRIPTOR.oneofs_by_name["body"].fields}
    assert (frames, bodies) == KINDS
    assert len(MESSAGES) == len(frames) - 2 + len(bodies)  # routed itself, introduction


def test_what_the_fuzzer_takes_into_a_mesh_is_taken_there():
    taking = Taking()
    assert taking.answer() == "Wake Pulse Digest"
    assert "PersistControl" in entry(DECODERS["control entry"].valid[-1])
    rows = DECODERS["row into a mesh"]
    seen = " ".join(map(rows.outcome, rows.valid))
    assert all(news in seen for news in ("session added", "cost added", "node changed"))


def test_hostile_entries_of_the_control_set_do_not_break_whoever_asks_for_roles():
    value = unpack_map(ROLE.payload)
    for via in ([b"\xc0", bytes(64)], [pack({"id": 1 << 62}), bytes(64)], [b"", b""]):
        assert "PersistControl" not in entry(pack({**value, "via": via}))
