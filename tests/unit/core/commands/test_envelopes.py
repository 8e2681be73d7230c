"""What is sealed to an owner, and what it seals back."""

from random import Random

import pytest

from meshnode.core.commands.envelopes import (
    ORDER_BYTES_MAX,
    PIECE_BYTES_MAX,
    REPLY_BYTES_MAX,
    SEALED_REQUEST,
    Answer,
    Correspondence,
    Request,
)
from meshnode.core.errors import PeerError
from meshnode.core.ids import MeshId, node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.packing import pack
from meshnode.core.sealing import SealingKey, seal

chance = Random(12).randbytes
MESH = MeshId("m" * 52)
SENDER_KEY, OWNER_KEY, RELAY_KEY = (Key.new(chance) for _ in range(3))
SENDER, OWNER, RELAY = (node_id_of(one.public) for one in (SENDER_KEY, OWNER_KEY, RELAY_KEY))
AT_SENDER, AT_OWNER, AT_RELAY = (
    Correspondence(one, MESH, chance) for one in (SENDER_KEY, OWNER_KEY, RELAY_KEY)
)
TO_OWNER = SealingKey.of_node(OWNER_KEY, MESH).public
COMMAND = Signed("command", b"turn north", bytes(64))
RECEIPT = Signed("receipt", b"done", bytes(64))


@pytest.mark.parametrize("request_", [Request(COMMAND), Request(COMMAND, 0), Request(COMMAND, 9)])
def test_an_owner_reads_what_was_asked_and_by_whom(request_: Request):
    sealed, _ = AT_SENDER.ask(OWNER, TO_OWNER, 7, request_)
    asked = AT_OWNER.hear(SENDER, 7, sealed)
    assert (asked.request, asked.sender) == (request_, SENDER)
    assert COMMAND.payload not in sealed


@pytest.mark.parametrize(
    "answer",
    [
        Answer(RECEIPT),
        Answer(piece=b""),
        Answer(piece=b"said", last=True),
        Answer(error=("refused", "no", "ask")),
    ],
)
def test_the_sender_reads_the_answer_and_nobody_else(answer: Answer):
    sealed, awaited = AT_SENDER.ask(OWNER, TO_OWNER, 7, Request(COMMAND))
    back = AT_OWNER.hear(SENDER, 7, sealed).answer(answer)
    assert awaited.open(back) == answer
    _, other = AT_SENDER.ask(OWNER, TO_OWNER, 7, Request(COMMAND))
    with pytest.raises(PeerError):
        other.open(back)


@pytest.mark.parametrize(("sender", "number"), [(SENDER, 8), (RELAY, 7), (OWNER, 7)])
def test_a_request_opens_under_its_own_sender_and_number_only(sender, number):
    sealed, _ = AT_SENDER.ask(OWNER, TO_OWNER, 7, Request(COMMAND))
    with pytest.raises(PeerError):
        AT_OWNER.hear(sender, number, sealed)


def test_nobody_writes_in_the_name_of_another():
    about = pack([MESH, OWNER, SENDER, 7])
    forged = RELAY_KEY.sign(
        "relayed",
        {
            "about": about,
            "answer_key": SealingKey(chance(32)).public,
            "command": COMMAND.to_list(),
            "piece": None,
        },
    )
    sealed = seal(TO_OWNER, pack(forged.to_list()), SEALED_REQUEST + about)
    with pytest.raises(PeerError, match="signature"):
        AT_OWNER.hear(SENDER, 7, sealed)


@pytest.mark.parametrize(
    "changed",
    [
        {"about": b"another"},
        {"piece": -1},
        {"piece": 1 << 40},
        {"piece": 1.5},
        {"piece": "one"},
        {"command": None},
        {"command": [b"a"]},
        {"answer_key": "text"},
    ],
)
def test_a_request_that_makes_no_sense_is_refused(changed):
    about = pack([MESH, OWNER, SENDER, 7])
    good = {
        "about": about,
        "answer_key": bytes(32),
        "command": COMMAND.to_list(),
        "piece": None,
    }
    signed = SENDER_KEY.sign("relayed", good | changed)
    sealed = seal(TO_OWNER, pack(signed.to_list()), SEALED_REQUEST + about)
    with pytest.raises(PeerError):
        AT_OWNER.hear(SENDER, 7, sealed)


def test_an_owner_does_not_answer_to_a_key_that_hides_nothing():
    about = pack([MESH, OWNER, SENDER, 7])
    value = {"about": about, "answer_key": bytes(32), "command": COMMAND.to_list(), "piece": None}
    signed = SENDER_KEY.sign("relayed", value)
    sealed = seal(TO_OWNER, pack(signed.to_list()), SEALED_REQUEST + about)
    with pytest.raises(PeerError):
        AT_OWNER.hear(SENDER, 7, sealed).answer(Answer(RECEIPT))


def test_the_largest_command_and_the_largest_piece_fit():
    large = Signed("command", bytes(64 << 10), bytes(64))
    sealed, awaited = AT_SENDER.ask(OWNER, TO_OWNER, (1 << 63) - 1, Request(large, 1 << 19))
    assert len(sealed) <= ORDER_BYTES_MAX
    asked = AT_OWNER.hear(SENDER, (1 << 63) - 1, sealed)
    piece = asked.answer(Answer(piece=bytes(PIECE_BYTES_MAX), error=("", "", "")))
    wordy = asked.answer(Answer(error=("x", "é" * 5000, "é" * 5000)))
    assert len(piece) <= REPLY_BYTES_MAX
    assert len(wordy) <= REPLY_BYTES_MAX
    assert len(awaited.open(piece).piece or b"") == PIECE_BYTES_MAX
