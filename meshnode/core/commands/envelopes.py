"""What travels along links for a node: a command, sealed to its owner, and the answer, sealed back.

Invariant: relays see who writes to whom, along which way, and how much; nothing of it can they
read, change, or use elsewhere. What is sealed is bound to mesh, owner, sender and number, and
inside the sender has signed it: so the owner knows which member delivers a command (`via` of its
grant), and whoever returns an answer that opens has read the request, which none but the owner can.

The answer is sealed to a key that the sender makes for this one request. Lengths are not hidden: a
relay that sees them learns whether a reading or a command goes by, which it may.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from meshnode.core.commands.commands import COMMAND, COMMAND_BYTES_MAX, RECEIPT
from meshnode.core.errors import PeerError
from meshnode.core.ids import NodeId, node_id_of, node_key_of
from meshnode.core.keys import Key, Signed, verify
from meshnode.core.packing import pack, typed, unpack, unpack_map
from meshnode.core.sealing import KEY_BYTES, SEALED_BYTES_MORE, SealingKey, seal

if TYPE_CHECKING:
    from meshnode.core.ids import Chance, MeshId

REQUEST = "relayed"
SEALED_REQUEST, SEALED_ANSWER = b"smesh/v1/sealed-request\0", b"smesh/v1/sealed-answer\0"
PIECE_BYTES_MAX = 64 << 10  # of output, in one answer
PIECES_MAX = 1 << 20  # of one reading
FRAME_BYTES_MORE = 4096  # than what is carried: names, numbers and signatures around it
ORDER_BYTES_MAX = COMMAND_BYTES_MAX + FRAME_BYTES_MORE + SEALED_BYTES_MORE  # sealed
REPLY_BYTES_MAX = PIECE_BYTES_MAX + FRAME_BYTES_MORE + SEALED_BYTES_MORE  # a receipt is smaller
TEXT_CHARS_MAX = 1000  # of an error's message, and of its hint; the rest is cut
NO_COMMAND = Signed(COMMAND, b"", b"")


class Request(msgspec.Struct, frozen=True):
    """A command to be executed; or, with `piece`, that piece of the output that it may read.

    With `until_accepted` it is answered once it is journalled. With `renew` nothing is ordered:
    whoever has signed the request asks for a certificate.
    """

    command: Signed
    piece: int | None = None
    until_accepted: bool = False
    renew: bool = False


RENEWAL = Request(NO_COMMAND, 0, renew=True)  # to older versions a reading that nobody has signed


class Answer(msgspec.Struct, frozen=True):
    """A receipt, a piece of output or a certificate, or the code, message and hint of an error."""

    receipt: Signed | None = None
    piece: bytes | None = None
    last: bool = False  # no piece follows
    error: tuple[str, str, str] = ("", "", "")


class Asked(msgspec.Struct, frozen=True):
    """A request as it arrived. `sender` has signed it."""

    request: Request
    sender: NodeId
    answer_key: bytes
    about: bytes

    def answer(self, answer: Answer) -> bytes:
        """Seal an answer to whoever asked; raises PeerError if its key hides nothing."""
        receipt = None if answer.receipt is None else answer.receipt.to_list()
        code, message, hint = answer.error
        value = {
            "receipt": receipt,
            "piece": answer.piece,
            "last": answer.last,
            "error": [code, message[:TEXT_CHARS_MAX], hint[:TEXT_CHARS_MAX]],
        }
        return seal(self.answer_key, pack(value), SEALED_ANSWER + self.about)


class Awaited(msgspec.Struct, frozen=True):
    """What a sender keeps of a request: with it, and nothing else, the answer opens."""

    key: SealingKey
    about: bytes

    def open(self, sealed: bytes) -> Answer:
        """Return the owner's answer; raises PeerError if it was changed, or is not the owner's."""
        value = unpack_map(self.key.open(sealed, SEALED_ANSWER + self.about))
        try:
            receipt, piece = value["receipt"], value["piece"]
            code, message, hint = (str(text) for text in value["error"])
            return Answer(
                None if receipt is None else _signed(RECEIPT, receipt),
                None if piece is None else typed(piece, bytes),
                typed(value["last"], bool),
                (code, message, hint),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PeerError(f"not an answer: {error}") from error


class Correspondence:
    """One node's way of writing to others, and of reading what they write to it."""

    def __init__(self, key: Key, mesh_id: MeshId, chance: Chance) -> None:
        self._key = key
        self._self_id = node_id_of(key.public)
        self._mesh_id = mesh_id
        self._chance = chance
        self._sealing = SealingKey.of_node(key, mesh_id)

    def ask(
        self, owner: NodeId, sealing_key: bytes, number: int, request: Request
    ) -> tuple[bytes, Awaited]:
        """Seal a request to its owner; raises PeerError if the key in its record is none."""
        about = _about(self._mesh_id, owner, self._self_id, number)
        answer_key = SealingKey(self._chance(KEY_BYTES))
        value = {
            "about": about,
            "answer_key": answer_key.public,
            "command": request.command.to_list(),
            "piece": request.piece,
            "until_accepted": request.until_accepted,
        }
        if request.renew:
            value["renew"] = True
        signed = self._key.sign(REQUEST, value)
        sealed = seal(sealing_key, pack(signed.to_list()), SEALED_REQUEST + about)
        return sealed, Awaited(answer_key, about)

    def hear(self, sender: NodeId, number: int, sealed: bytes) -> Asked:
        """Open a request; raises PeerError unless `sender` has written it, to us, as this one."""
        about = _about(self._mesh_id, self._self_id, sender, number)
        signed = _signed(REQUEST, unpack(self._sealing.open(sealed, SEALED_REQUEST + about)))
        verify(signed, REQUEST, node_key_of(sender))
        value = unpack_map(signed.payload)
        try:
            piece = value["piece"]
            if value["about"] != about or (piece is not None and not 0 <= piece < PIECES_MAX):
                raise PeerError("a request that is not what its envelope says")
            return Asked(
                Request(
                    _signed(COMMAND, value["command"]),
                    None if piece is None else typed(piece, int),
                    typed(value["until_accepted"], bool),
                    typed(value.get("renew", False), bool),
                ),
                sender,
                typed(value["answer_key"], bytes),
                about,
            )
        except (KeyError, TypeError) as error:
            raise PeerError(f"not a request: {error}") from error


def _about(mesh_id: str, owner: str, sender: str, number: int) -> bytes:
    return pack([mesh_id, owner, sender, number])


def _signed(kind: str, parts: object) -> Signed:
    try:
        payload, signature = typed(parts, list)
        return Signed(kind, typed(payload, bytes), typed(signature, bytes))
    except (TypeError, ValueError) as error:
        raise PeerError(f"not a signed {kind}: {error}") from error
