"""Who bears a session key where it is disclosed, and what that key lets its bearer see.

Invariant: what a bearer orders is judged by the owner of its target, as ever; here it is only said
who asks, and what of this node's replicas may be shown to them. A key that is narrowed sees what it
is narrowed to, and no sums over anything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from meshnode.core.control.grants import (
    RENEWAL,
    Grant,
    Request,
    SessionKey,
    actions_of,
    check_permission,
    is_renewal,
    said_of,
    session_key_from_text,
)
from meshnode.core.control.roles import ACTIONS_OF_ROLE
from meshnode.core.errors import NotAuthenticatedError, NotPermittedError
from meshnode.core.keys import key_id_of

if TYPE_CHECKING:
    from meshnode.app.commands.keys import Keys
    from meshnode.core.ids import NodeId
    from meshnode.core.sessions.sessions import SessionRecord

READ = "read"


class KeyStateError(NotAuthenticatedError):
    """A key that is well formed and not good now; `state` is that of a `Verdict`."""

    def __init__(self, state: str, message: str, hint: str) -> None:
        super().__init__(message, hint)
        self.state = state


class Bearer(msgspec.Struct, frozen=True):
    """Somebody with a good session key, at this node."""

    key: SessionKey
    grants: tuple[Grant, ...]
    role: str
    here: NodeId

    @property
    def key_id(self) -> str:
        """As people and logs name the key."""
        return key_id_of(self.key.key.public)

    @property
    def is_narrowed(self) -> bool:
        """Whether some sessions or nodes of the mesh are outside of what the key is for."""
        return any(
            limit is not None
            for link in self.grants
            for limit in (link.nodes, link.agents, link.sessions, link.specializations)
        )

    @property
    def names_nodes(self) -> bool:
        """Whether some nodes of the mesh are outside of what the key is for."""
        return any(link.nodes is not None for link in self.grants)

    def check(self, action: str) -> None:
        """Raise NotPermittedError unless the key is good for this action, somewhere."""
        if action not in ACTIONS_OF_ROLE[self.role]:
            raise NotPermittedError(f"the role {self.role} does not allow to {said_of(action)}")
        self._check_via()
        if is_renewal(self.grants) and action != RENEWAL:
            check_permission(self.grants, Request(action, self.here))  # words it
        actions = actions_of(self.grants)
        if action not in actions:
            hint = f"it may: {', '.join(sorted(actions)) or 'nothing'}"
            raise NotPermittedError(f"this key may not {said_of(action)}", hint)

    def check_mints(self) -> None:
        """Raise NotPermittedError if what this key makes could not be used at this node."""
        self._check_via()

    def check_everywhere(self, action: str) -> None:
        """Raise NotPermittedError unless the key is good for this action in the whole mesh."""
        self.check(action)
        if self.is_narrowed:
            raise NotPermittedError(
                f"this key may {said_of(action)}, but not all of the mesh",
                "its grant names nodes, agents, sessions or specializations",
            )

    def check_for(self, action: str, owner: NodeId, record: SessionRecord) -> None:
        """Raise NotPermittedError unless the key is good for this action on this session."""
        self.check(action)
        check_permission(self.grants, self._about(action, owner, record))

    def may_see(self, owner: NodeId, record: SessionRecord) -> bool:
        """Whether every link of the key lets its bearer read this session."""
        return self.may(READ, owner, record)

    def may(self, action: str, owner: NodeId, record: SessionRecord) -> bool:
        """Whether every link of the key allows this action on this session."""
        request = self._about(action, owner, record)
        return all(link.permits(request) for link in self.grants)

    def may_see_agent(self, node: NodeId, agent_id: str, specialization: str) -> bool:
        """Whether every link of the key lets its bearer read this entry of the registry."""
        return all(
            (link.nodes is None or node in link.nodes)
            and (link.agents is None or agent_id in link.agents)
            and (link.specializations is None or specialization in link.specializations)
            and link.sessions is None
            for link in self.grants
        )

    def may_see_node(self, node: NodeId) -> bool:
        """Whether no link of the key names other nodes only."""
        return all(link.nodes is None or node in link.nodes for link in self.grants)

    def _about(self, action: str, owner: NodeId, record: SessionRecord) -> Request:
        names = (record.session_id, record.agent_id, record.specializations)
        return Request(action, owner, *names, self.here)

    def _check_via(self) -> None:
        if any(link.via and link.via != self.here for link in self.grants):
            raise NotPermittedError(
                "this key was made by another gateway, for itself alone",
                "use it there, or make one here with the key that it was made of",
            )


class Bearers:
    """Tells who bears a key; offline, from this node's control set."""

    def __init__(self, keys: Keys, here: NodeId) -> None:
        self._keys = keys
        self._here = here

    def known(self, text: str, now_s: float) -> Bearer:
        """Return who bears a key; raises NotAuthenticatedError, KeyStateError if it says why.

        No skew is allowed for, as between clocks of two nodes: who is told that a key has expired
        makes another, and what expires here a little early would be refused by an owner later.
        """
        key = session_key_from_text(text)
        verdict = self._keys.judge(key.chain, now_s, 0.0)
        if verdict.state != "valid":
            hint = "make another: session-mesh keys new, or POST /api/session-mesh/keys"
            raise KeyStateError(verdict.state, verdict.detail or "this key is not valid", hint)
        return Bearer(key, self._keys.grants_of(key.chain), verdict.role, self._here)
