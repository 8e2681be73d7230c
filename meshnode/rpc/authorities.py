"""What a node answers its own user about who may command and who may admit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.app.pieces import chunks, in_pieces
from meshnode.core.control.roles import NAME_CHARS_MAX
from meshnode.v1 import authority_service_pb2 as pb
from meshnode.v1 import authority_service_pb2_grpc as pb_grpc
from meshnode.wire.times import time_to_wire

if TYPE_CHECKING:
    from collections.abc import Collection, Generator

    import grpc.aio

    from meshnode.app.membership.authorities import Authorities, GivenRole
    from meshnode.core.control.entries import Revoke
    from meshnode.rpc.guard import Context


class AuthorityServicer(pb_grpc.AuthorityServiceServicer):
    """Answers over the Unix socket; nothing here is a secret, and nothing changes."""

    def __init__(self, authorities: Authorities) -> None:
        self._authorities = authorities

    def add_to(self, server: grpc.aio.Server) -> None:
        """Let a server answer for it."""
        pb_grpc.add_AuthorityServiceServicer_to_server(self, server)

    async def ListAuthorities(  # noqa: N802 - named by the proto
        self, request: pb.ListAuthoritiesRequest, context: Context
    ) -> pb.ListAuthoritiesResponse:
        """List roots, roles, nodes that admit, and what was revoked for good."""
        del request, context
        return await in_pieces(_answered(self._authorities))


def _answered(known: Authorities) -> Generator[None, None, pb.ListAuthoritiesResponse]:
    """Answer, with a pause at each yield.

    However much thieves have said, it fits into one message, or nobody could take them out: names
    are cut, and survivors are named only where a root's are to be said again by another one.
    """
    roles, revocations = known.roles(), known.revocations()
    present = known.succession.present
    said = pb.ListAuthoritiesResponse(
        version=known.succession.version,
        roots=present,
        removed_roots=sorted(known.succession.removed),
        admitters=[
            pb.AdmittingNode(
                node_id=one.node, root=one.root, expires_at=time_to_wire(one.expires_at_s)
            )
            for one in known.admitters()
        ],
    )
    for given in chunks(roles):
        said.roles.extend(map(_role_to_wire, given))
        yield
    for some in chunks(revocations):
        said.revocations.extend(_revoked_to_wire(*one, present) for one in some)
        yield
    return said


def _role_to_wire(given: GivenRole) -> pb.GivenRole:
    role = given.role
    return pb.GivenRole(
        subject=role.subject,
        role=role.role,
        name=role.name[:NAME_CHARS_MAX],
        giver=given.giver,
        node_id=given.node,
        at=time_to_wire(role.issued_s),
        state=given.state,
    )


def _revoked_to_wire(issuer: bytes, said: Revoke, roots: Collection[bytes]) -> pb.RevokedForGood:
    survivors = said.survivors if issuer in roots else ()
    return pb.RevokedForGood(what=said.what, name=said.name, survivors=survivors, issuer=issuer)
