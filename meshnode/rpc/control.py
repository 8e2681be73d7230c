"""What a node answers its own user about the control set.

Invariant: the node signs nothing here. It takes what the user has signed, or says why not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.core.control.control import NoAuthorityError, NoRoomError
from meshnode.core.control.shares import FullError
from meshnode.core.errors import (
    ConflictError,
    ExhaustedError,
    NotFoundError,
    NotPermittedError,
    PeerError,
    UsageError,
)
from meshnode.v1 import local_service_pb2 as pb
from meshnode.wire.signed import signed_from_wire, signed_to_wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from meshnode.core.feeds.feed import Replica
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Signed


def read_head(
    replicas: Mapping[NodeId, Replica], request: pb.ReadHeadRequest
) -> pb.ReadHeadResponse:
    """Answer how far a feed is known here; raises NotFoundError."""
    for origin, replica in replicas.items():
        if origin == request.node_id and replica.header and replica.header.signed:
            return pb.ReadHeadResponse(header=signed_to_wire(replica.header.signed))
    raise NotFoundError(f"no node {request.node_id[:60]}", "session-mesh nodes lists them")


async def add_control(
    submit: Callable[[Signed], Awaitable[None]], request: pb.AddControlRequest
) -> pb.AddControlResponse:
    """Take an entry; raises the MeshError that says whose fault it is if it is not acceptable."""
    try:
        await submit(signed_from_wire(request.entry))
    except NoAuthorityError as error:
        raise NotPermittedError(
            error.message, "session-mesh status shows the role of this home"
        ) from error
    except NoRoomError as error:
        raise ConflictError(error.message, "sign it with another operator's key") from error
    except FullError as error:
        hint = "docs/protocol/control.md says what still finds room, and by whom"
        raise ExhaustedError(error.message, hint) from error
    except PeerError as error:
        raise UsageError(error.message) from error
    return pb.AddControlResponse()
