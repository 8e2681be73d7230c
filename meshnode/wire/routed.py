"""Messages that travel along a route, on the wire."""

from __future__ import annotations

from math import isfinite
from typing import assert_never

from meshnode.core.commands.envelopes import ORDER_BYTES_MAX, REPLY_BYTES_MAX
from meshnode.core.errors import PeerError
from meshnode.core.feeds.messages import Ask, Heard, Order, Reply, Routed
from meshnode.core.links.relay import ROUTE_MAX
from meshnode.v1 import link_service_pb2 as pb
from meshnode.wire.ids import node_id_from_wire

TEXT_CHARS_MAX = 400  # of an error; the rest is cut
CODE_CHARS_MAX = 40


def routed_to_wire(routed: Routed) -> pb.Routed:
    """Encode."""
    message = pb.Routed(route=routed.route, at=routed.at)
    body = routed.body
    match body:
        case Ask():
            message.ask.about = body.about
        case Heard(about, ago_s):
            message.heard.CopyFrom(pb.Heard(about=about, ago_s=ago_s))
        case Order(number, sealed):
            message.order.CopyFrom(pb.Order(number=number, sealed=sealed))
        case Reply(number, sealed, (code, text, hint)):
            reply = pb.Reply(
                number=number, sealed=sealed, code=code, message=_cut(text), hint=_cut(hint)
            )
            message.reply.CopyFrom(reply)
        case _:
            assert_never(body)
    return message


def routed_from_wire(message: pb.Routed) -> Routed | None:
    """Decode; None for a body of a newer version; raises PeerError."""
    if len(message.route) > ROUTE_MAX:
        raise PeerError(f"a route of more than {ROUTE_MAX} nodes")
    body = _body_from_wire(message)
    if body is None:
        return None
    return Routed(tuple(node_id_from_wire(step) for step in message.route), message.at, body)


def _body_from_wire(message: pb.Routed) -> Ask | Heard | Order | Reply | None:
    match message.WhichOneof("body"):
        case "ask":
            return Ask(node_id_from_wire(message.ask.about))
        case "heard":
            heard = message.heard
            ago_s = heard.ago_s if heard.HasField("ago_s") and isfinite(heard.ago_s) else None
            return Heard(node_id_from_wire(heard.about), ago_s)
        case "order":
            order = message.order
            return Order(order.number, _sealed(order.sealed, ORDER_BYTES_MAX))
        case "reply":
            reply = message.reply
            error = (reply.code[:CODE_CHARS_MAX], _cut(reply.message), _cut(reply.hint))
            return Reply(reply.number, _sealed(reply.sealed, REPLY_BYTES_MAX), error)
        case _:
            return None


def _sealed(sealed: bytes, bytes_max: int) -> bytes:
    if len(sealed) > bytes_max:
        raise PeerError(f"more than {bytes_max} bytes sealed")
    return sealed


def _cut(text: str) -> str:
    return text[:TEXT_CHARS_MAX]
