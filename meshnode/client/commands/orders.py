"""Signed commands from this user's side: how one is made, and how its receipt is believed.

Invariant: an outcome is shown only if the owner node signed it for exactly this command.
"""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.client.commands import outbox
from meshnode.client.commands.receipts import check_is_about
from meshnode.client.durations import rfc3339
from meshnode.client.errors import SilentNodeError
from meshnode.client.keys.authority import mesh_id_of, session_key
from meshnode.client.keys.blaming import KEY_VARIABLE, blaming
from meshnode.client.messages import to_wire
from meshnode.core.commands.commands import (
    KILL_LIFE_S,
    STEER_LIFE_S,
    Command,
    command_from_signed,
    receipt_from_signed,
    sign_command,
)
from meshnode.core.errors import (
    ConflictError,
    NoAnswerError,
    PeerError,
    StaleError,
    UsageError,
)
from meshnode.core.ids import b32, node_key_of, unb32
from meshnode.core.keys import Signed
from meshnode.core.packing import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meshnode.client.home import Home
    from meshnode.client.targets.targets import Delivery, Order
    from meshnode.core.control.grants import SessionKey
    from meshnode.core.ids import Chance
    from meshnode.v1.signed_pb2 import Signed as SignedMessage

    Send = Callable[[str, SignedMessage, Delivery], SignedMessage]

COMMAND_ID_BYTES = 16
KEY_HELD_S = 10.0  # of the five minutes that it lives
KEY_USES_MAX = 64  # owners count what is signed under one grant


class _Held(msgspec.Struct):
    """A key that was made or parsed a moment ago, and the text of the environment then."""

    key: SessionKey
    text: str
    since_s: float
    used: int = 0

    def serves(self, text: str, now_s: float) -> bool:
        young = 0 <= now_s - self.since_s < KEY_HELD_S
        return young and self.text == text and self.used < KEY_USES_MAX


class Commander:
    """Signs orders with what this user may command with, sends them, and judges the answers."""

    def __init__(
        self,
        home: Home,
        environment: Mapping[str, str],
        now: Callable[[], float],
        chance: Chance,
        send: Send,
    ) -> None:
        self._home = home
        self._environment = environment
        self._now = now
        self._chance = chance
        self._send = send
        self._held: _Held | None = None

    def sign(self, order: Order) -> SignedMessage:
        """Make a request; raises NotAuthenticatedError when this user has nothing to sign with."""
        return to_wire(self._signed(order, self._chance(COMMAND_ID_BYTES)))

    def submit(self, order: Order, delivery: Delivery) -> dict[str, Any]:
        """Have an order carried out and return its outcome; raises what the owner says, or why not.

        With a command id of the caller the very command is kept, so that a retry repeats it.
        """
        command_id = delivery.command_id or b32(self._chance(COMMAND_ID_BYTES))
        raw_id = command_id_of(command_id)
        known = outbox.kept(self._home, command_id, order) if delivery.command_id else None
        command = known or self._signed(order, raw_id)
        if delivery.command_id:
            outbox.keep(self._home, command_id, command)
        try:
            with blaming(self._environment):
                receipt = self._send(order.node_id, to_wire(command), delivery)
        except StaleError as error:
            if known:
                raise forgotten(command_id) from error
            outbox.drop(self._home, command_id)  # made just now, and refused: it is signed anew
            raise
        except (NoAnswerError, SilentNodeError) as error:
            outbox.keep(self._home, command_id, command)
            again = (
                f"it may have been carried out; to be sure, repeat it: --command-id {command_id}"
            )
            hint = "; ".join(filter(None, (error.hint, again)))
            raise NoAnswerError(error.message, hint) from error
        return outcome_of(command, Signed(receipt.type, receipt.payload, receipt.signature))

    def repeats(self, order: Order, delivery: Delivery) -> bool:
        """Whether this very command was sent before; raises UsageError, or ConflictError."""
        if not delivery.command_id:
            return False
        command_id_of(delivery.command_id)
        return outbox.kept(self._home, delivery.command_id, order) is not None

    def keep_ended(self, order: Order, delivery: Delivery) -> None:
        """Keep the id of an order for what has ended already: repeated, it ends nothing else."""
        if delivery.command_id:
            outbox.keep_ended(self._home, delivery.command_id, order)

    def _key(self, action: str, now_s: float) -> SessionKey:
        """Return what to sign with: a key is made once for what is ordered within seconds."""
        if action == "kill":  # with a key of its own, whose life is another
            return session_key(self._home, self._environment, now_s, self._chance, action)
        held = self._held
        if held is None or not held.serves(self._environment.get(KEY_VARIABLE, ""), now_s):
            key = session_key(self._home, self._environment, now_s, self._chance, action)
            text = self._environment.get(KEY_VARIABLE, "")
            held = self._held = _Held(key, text, now_s)
        held.used += 1
        return held.key

    def _signed(self, order: Order, command_id: bytes) -> Signed:
        now_s = self._now()
        return sign_order(
            self._key(order.action, now_s), mesh_id_of(self._home), order, command_id, now_s
        )


def sign_order(
    key: SessionKey, mesh_id: str, order: Order, command_id: bytes, now_s: float
) -> Signed:
    """Sign an order with a session key, to be carried out within the life of its action."""
    # Half a kill's life: the owner measures it by its own clock, which may be behind ours.
    life_s = KILL_LIFE_S // 2 if order.action == "kill" else STEER_LIFE_S
    return sign_command(
        key,
        Command(
            mesh=mesh_id,
            command_id=command_id,
            node=order.node_id,
            session=order.session_id,
            epoch=order.epoch,
            action=order.action,
            args=order.args,
            issued_s=int(now_s),
            expires_s=int(now_s) + life_s,
        ),
    )


def outcome_of(command: Signed, receipt: Signed) -> dict[str, Any]:
    """Return what the owner says became of a command; raises PeerError unless it really says so."""
    sent = command_from_signed(command)
    try:
        said = receipt_from_signed(receipt, node_key_of(sent.node))
        check_is_about(said, sent, command.hash)
    except PeerError as error:
        raise PeerError(
            f"the receipt is not genuine: {error.message}",
            "whether the command was carried out is not known",
        ) from error
    outcome: dict[str, Any] = {
        "command_id": b32(said.command_id),
        "session_id": said.session or None,
        "node_id": said.node,
        "outcome": said.outcome,
        "at": rfc3339(said.at_s),
        "detail": said.detail,
        "receipt": b64encode(pack([receipt.type, receipt.payload, receipt.signature])).decode(),
        "receipt_verified": True,
    }
    if sent.action in {"kill", "close"}:
        outcome["processes"] = said.processes or {"found": 0, "gone": 0, "survivors": []}
    return outcome


def forgotten(command_id: str) -> ConflictError:
    """Say why a command that was sent before is neither answered nor signed anew."""
    return ConflictError(
        f"the owner has lost its journal since command {command_id} was sent: whether it was"
        " carried out is not known",
        "look what became of it; to order it once more, take another id",
    )


def command_id_of(text: str) -> bytes:
    """Read a command id as users write it; raises UsageError."""
    try:
        raw = unb32(text)
    except PeerError:
        raw = b""
    if len(raw) != COMMAND_ID_BYTES:
        raise UsageError(
            f"not a command id: {text[:60]!r}", "it is the command_id of an earlier answer"
        )
    return raw
