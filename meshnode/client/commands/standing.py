"""Standing kills from this user's side: leaving one, listing them, taking one back.

Invariant: what is left is signed by the operator identity of this home, never by a session key:
it must be known whose word it is when nobody is there to ask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshnode.client.durations import rfc3339, seconds_of
from meshnode.client.errors import NoNodeError, SilentNodeError
from meshnode.client.messages import to_plain, to_wire
from meshnode.client.targets.targets import Target
from meshnode.client.words import too_short
from meshnode.core.errors import (
    ConflictError,
    ExpiredError,
    NotFoundError,
    NotPermittedError,
    UnreachableError,
)
from meshnode.core.ids import PREFIX_CHARS_MIN, b32, unb32
from meshnode.v1 import local_service_pb2 as pb
from meshnode.v1 import order_service_pb2 as order_pb

if TYPE_CHECKING:
    from meshnode.client.commands.ordering import Ordering
    from meshnode.client.connection.connection import Connection
    from meshnode.client.targets.targets import Delivery, Terms
    from meshnode.core.control.entries import StandingKill

    Plain = dict[str, Any]

OPEN = frozenset({"standing"})  # states in which there is something to take back


def kill_or_park(mesh: Ordering, target: Target | Plain, terms: Terms, delivery: Delivery) -> Plain:
    """End a session now, or leave an order where its owner cannot be reached, or tells no time."""
    session = mesh.resolve(target) if isinstance(target, Target) else target
    terms.checked()
    if session["state"] != "unreachable":
        try:
            return mesh.kill(session, force=terms.force, grace_s=terms.grace_s, delivery=delivery)
        except (NoNodeError, SilentNodeError):
            raise
        except UnreachableError:
            pass  # whether or not it came there: an order for the same start does it once
        except ExpiredError:  # by a clock that was ahead, or is; an order for a start asks none
            return park(mesh, session, terms)
    mesh.check_returns(session)
    return park(mesh, session, terms)


def park(mesh: Connection, session: Plain, terms: Terms) -> Plain:
    """Leave an order for one session as it started; returns an outcome, `parked`."""
    from meshnode.core.control.entries import StandingKill  # noqa: PLC0415 - a list needs no cryptography

    body = StandingKill(
        session=session["session_id"],
        epoch=session["session_epoch"],
        node=session["node_id"],  # so that nobody else's row can pass for it
        force=terms.force,
        grace_s=0 if terms.force else terms.grace_s,
    )
    order_id, expires_at = _leave(mesh, body, terms)
    return {
        "command_id": None,
        "order_id": order_id,
        "session_id": session["session_id"],
        "node_id": session["node_id"],
        "outcome": "parked",
        "at": rfc3339(mesh.now()),
        "detail": f"{session['node_name']} ends it when it hears of it, until {expires_at}",
        "receipt": None,
        "receipt_verified": False,
        "expires_at": expires_at,
    }


def park_for(mesh: Connection, specialization: str, node_id: str, terms: Terms) -> Plain:
    """Leave an order for whatever of a specialization, or on a node, has started by now."""
    from meshnode.core.control.entries import StandingKill  # noqa: PLC0415 - as above

    body = StandingKill(
        specialization=specialization,
        node=node_id,
        force=terms.force,
        grace_s=0 if terms.force else terms.grace_s,
    )
    order_id, expires_at = _leave(mesh, body, terms)
    return {"order_id": order_id, "expires_at": expires_at}


def orders(mesh: Connection) -> Plain:
    """List the standing kills that this node holds, the newest first: `orders`."""
    answer = mesh.call(mesh.node_orders.ListOrders, order_pb.ListOrdersRequest())
    return to_plain(answer)


def cancel(mesh: Connection, name: str) -> Plain:
    """Take an order back, by its id or the start of it; returns the order as it was.

    Raises NotFoundError, ConflictError if it is done or fits several, NotPermittedError if it is
    another's and this user no admin.
    """
    from meshnode.client.keys.authority import operator_id, sign_body  # noqa: PLC0415 - as above
    from meshnode.core.control.entries import Cancel  # noqa: PLC0415 - as above

    order = _named(orders(mesh)["orders"], name)
    if order["state"] not in OPEN:
        said = "its session has ended" if order["state"] == "done" else f"it is {order['state']}"
        raise ConflictError(
            f"there is nothing to take back: {said}", "session-mesh orders lists what stands"
        )
    check_signs(mesh)
    role = to_plain(mesh.call(mesh.node.GetStatus, pb.GetStatusRequest()))["role"]
    if role != "admin" and order["issuer"] != operator_id(mesh.home):
        raise NotPermittedError(
            f"this order was left by {order['issuer']}",
            "only who has left it, or an admin, can take it back",
        )
    entry = sign_body(
        mesh.home,
        Cancel(unb32(order["order_id"])),
        mesh.now(),
        mesh.chance,
        expires_s=int(seconds_of(order["expires_at"])),
    )
    mesh.call(mesh.node.AddControl, pb.AddControlRequest(entry=to_wire(entry)))
    return {**order, "state": "cancelled"}


def _named(held: list[Plain], name: str) -> Plain:
    found = [one for one in held if one["order_id"] == name]
    if not found and len(name) >= PREFIX_CHARS_MIN:
        found = [one for one in held if one["order_id"].startswith(name)]
    if not found:
        hint = (
            too_short(name, (one["order_id"] for one in held)) or "session-mesh orders lists them"
        )
        raise NotFoundError(f"no order {name[:60]!r}", hint)
    if len(found) > 1:
        raise ConflictError(f"{name!r} fits {len(found)} orders", "write more of its id")
    return found[0]


def _leave(mesh: Connection, body: StandingKill, terms: Terms) -> tuple[str, str]:
    from meshnode.client.keys.authority import sign_body  # noqa: PLC0415 - as above
    from meshnode.core.control.entries import entry_id_of  # noqa: PLC0415 - as above

    check_signs(mesh)
    expires_s = int(mesh.now()) + terms.checked().expires_s
    entry = sign_body(mesh.home, body, mesh.now(), mesh.chance, expires_s=expires_s)
    mesh.call(mesh.node.AddControl, pb.AddControlRequest(entry=to_wire(entry)))
    return b32(entry_id_of(entry)), rfc3339(expires_s)


def check_signs(mesh: Connection) -> None:
    """Refuse to use more than the key that the user has chosen to use."""
    from meshnode.client.keys.blaming import KEY_VARIABLE  # noqa: PLC0415 - as above

    if mesh.environment.get(KEY_VARIABLE, "").strip():
        raise NotPermittedError(
            "a session key leaves no orders, takes none back, and sets no budgets",
            "unset SESSION_API_KEY: the operator identity of this home signs them",
        )
