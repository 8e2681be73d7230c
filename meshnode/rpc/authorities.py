"""What a node answers its own user about who may command and who may admit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.v1 import authority_service_pb2 as pb
from meshnode.v1 import authority_service_pb2_grpc as pb_grpc
from meshnode.wire.times import time_to_wire

if TYPE_CHECKING:
    import grpc.aio

    from meshnode.app.authorities import Authorities, GivenRole
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
        known = self._authorities
        return pb.ListAuthoritiesResponse(
            version=known.succession.version,
            roots=known.succession.present,
            removed_roots=sorted(known.succession.removed),
            roles=map(_role_to_wire, known.roles()),
            admitters=[
                pb.AdmittingNode(
                    node_id=one.node, root=one.root, expires_at=time_to_wire(one.expires_at_s)
                )
                for one in known.admitters()
            ],
            revocations=[
                pb.RevokedForGood(
                    what=said.what, name=said.name, survivors=said.survivors, issuer=issuer
                )
                for issuer, said in known.revocations()
            ],
        )


def _role_to_wire(given: GivenRole) -> pb.GivenRole:
    role = given.role
    return pb.GivenRole(
        subject=role.subject,
        role=role.role,
        name=role.name,
        giver=given.giver,
        node_id=given.node,
        at=time_to_wire(role.issued_s),
        state=given.state,
    )
