"""Session keys: made, looked into, listed and revoked.

Invariant: a key's text leaves this module once, as the answer of `make`; every other answer names
it by its id. What a key is worth is said by the node, in the words of those who judge commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from meshnode.client.durations import rfc3339
from meshnode.client.keys.authority import (
    BACKDATE_S,
    ID_BYTES,
    Scope,
    check_ttl,
    checked_actions,
    described,
    mesh_id_of,
    new_key,
    sign_revocation,
    signed_grant,
)
from meshnode.client.keys.blaming import KEY_VARIABLE, blaming
from meshnode.client.keys.handed import (
    HandedKey,
    all_handed,
    checked_label,
    find_handed,
    handed,
    limits_of,
    note_revoked,
    remember,
)
from meshnode.client.messages import to_plain, to_wire
from meshnode.core.control.entries import Revoke
from meshnode.core.control.grants import (
    ACTIONS_OF_NEW_KEY,
    CHAIN_LINKS_MAX,
    KEY_PREFIX,
    RENEWAL,
    Grant,
    SessionKey,
    actions_of,
    check_time,
    common_of,
    grant_from_signed,
    session_key_from_text,
    verify_chain,
)
from meshnode.core.errors import NotPermittedError, UsageError
from meshnode.core.keys import Key, key_id_of
from meshnode.core.sessions.specializations import check_specialization
from meshnode.v1 import key_service_pb2 as pb
from meshnode.v1 import local_service_pb2 as local_pb

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from meshnode.client.connection.connection import Connection
    from meshnode.client.home import Home
    from meshnode.core.ids import Chance
    from meshnode.core.keys import Signed

    Plain = dict[str, Any]

FIELDS = (  # of a key that is listed
    *("key_id", "label", "grant_id", "renewable", "actions", "nodes", "agents", "sessions"),
    *("specializations", "via", "made_at", "expires_at", "revoked", "state"),
)
JUDGED_MAX = 256  # in one question


class Wish(msgspec.Struct, frozen=True):
    """What a new key shall be; `renewable`: it makes keys of this scope, and does nothing else."""

    scope: Scope
    ttl_s: int
    label: str = ""
    renewable: bool = False


class Maker(msgspec.Struct, frozen=True):
    """Where keys are made: by the key of the environment if it has one, else by the operator's."""

    home: Home
    environment: Mapping[str, str]
    now_s: float
    chance: Chance

    def make(self, wish: Wish) -> Plain:
        """Make a key: `key, key_id, label, ttl, expires_at, actions`; raises a MeshError."""
        label = checked_label(wish.label)
        scope = wish.scope
        if "" in (*(scope.agents or ()), *(scope.specializations or ())):
            raise UsageError("an agent or a specialization without a name", "leave it out")
        for spec in scope.specializations or ():
            check_specialization(spec)
        actions = checked_actions(scope.actions)
        if wish.renewable:
            actions = tuple(dict.fromkeys((*(actions or ACTIONS_OF_NEW_KEY), RENEWAL)))
        scope = replace(scope, actions=actions)
        text = self.environment.get(KEY_VARIABLE, "").strip()
        if text:
            parent = session_key_from_text(text)
            with blaming(self.environment):
                key = child_of(parent, scope, wish.ttl_s, self.now_s, self.chance)
            made = described(key, self.now_s)
        else:
            made = new_key(self.home, scope, wish.ttl_s, self.now_s, self.chance)
            key = session_key_from_text(made["key"])
        if self.home.initialised:  # a script with a renewal key may have no home
            expires_s = grant_from_signed(key.chain[-1]).expires_s
            remember(self.home, handed(key, label, self.now_s, expires_s), self.now_s)
        return {**made, "label": label}


def child_of(
    parent: SessionKey, scope: Scope, ttl_s: int, now_s: float, chance: Chance
) -> SessionKey:
    """Make a narrower key with another one, which needs neither a node nor a home.

    Raises UsageError for its lifetime, NotAuthenticatedError for a parent whose time is over,
    NotPermittedError for what the parent cannot give.
    """
    check_ttl(ttl_s)
    grants = verify_chain(parent.chain, grant_from_signed(parent.chain[0]).mesh)
    check_time(grants, now_s, 0)
    if len(grants) == CHAIN_LINKS_MAX:
        raise NotPermittedError(
            f"this key is the last of {CHAIN_LINKS_MAX} that were made of each other",
            "make one of the first key",
        )
    allowed = actions_of(grants)
    actions = scope.actions or tuple(a for a in ACTIONS_OF_NEW_KEY if a in allowed)
    refused = sorted(set(actions) - allowed)
    if refused or not actions:
        raise NotPermittedError(
            f"this key cannot give: {', '.join(refused) or 'anything'}",
            f"it may give: {', '.join(sorted(allowed)) or 'nothing'}",
        )
    key = Key.new(chance)
    link = Grant(
        mesh=grants[-1].mesh,
        issuer=parent.key.public,
        subject=key.public,
        actions=tuple(actions),
        not_before_s=int(now_s) - BACKDATE_S,
        expires_s=min(int(now_s) + ttl_s, *(link.expires_s for link in grants)),
        grant_id=chance(ID_BYTES),
        depth=len(grants),
        parent=parent.chain[-1].hash,
        nodes=scope.nodes,
        agents=scope.agents,
        specializations=scope.specializations,
        via=scope.via,
    )
    _check_leads_somewhere(grants, link)
    return SessionKey(key, (*parent.chain, signed_grant(parent.key, link)))


def _check_leads_somewhere(grants: Sequence[Grant], link: Grant) -> None:
    """Raise NotPermittedError for a key that no session would obey: all of its links must agree.

    Specializations may differ: a session has several.
    """
    limits: dict[str, Callable[[Grant], tuple[str, ...] | None]] = {
        "nodes": lambda one: one.nodes,
        "agents": lambda one: one.agents,
        "via": lambda one: (one.via,) if one.via else None,
    }
    for name, limit in limits.items():
        given = common_of(map(limit, grants))
        if given is not None and not common_of((given, limit(link))):
            raise NotPermittedError(
                f"this key cannot give: {name} {', '.join(limit(link) or ()) or 'at all'}",
                f"it may give: {name} {', '.join(given) or 'none'}",
            )


def inspect(text: str) -> Plain:
    """Return what a key says, without asking anybody; raises NotAuthenticatedError."""
    key = session_key_from_text(text)
    grants = tuple(verify_chain(key.chain, grant_from_signed(key.chain[0]).mesh))
    return {
        "key_id": key_id_of(key.key.public),
        "mesh_id": grants[0].mesh,
        **limits_of(grants),
        "actions": sorted(actions_of(grants)),
        "not_before": rfc3339(max(link.not_before_s for link in grants)),
        "expires_at": rfc3339(min(link.expires_s for link in grants)),
        "links": [_link(link) for link in grants],
        "verdict": None,
    }


def _link(link: Grant) -> Plain:
    return {
        "issuer": key_id_of(link.issuer),
        "subject": key_id_of(link.subject),
        "grant_id": link.grant_id.hex(),
        **limits_of((link,)),
        "not_before": rfc3339(link.not_before_s),
        "expires_at": rfc3339(link.expires_s),
    }


def listed(home: Home, now_s: float) -> list[Plain]:
    """Return the keys that this home has made, the newest first, as far as it knows itself."""
    mesh_id = mesh_id_of(home)
    keys = [key for key in all_handed(home) if grant_from_signed(key.grants[0]).mesh == mesh_id]
    return [_listed(key, mesh_id, now_s) for key in keys]


def _listed(key: HandedKey, mesh_id: str, now_s: float) -> Plain:
    state = "expired" if key.expires_s <= now_s else "valid"
    return {
        "key_id": key.key_id,
        "label": key.label,
        "grant_id": grant_from_signed(key.grants[-1]).grant_id.hex(),
        **limits_of(key.shown(mesh_id)),
        "made_at": rfc3339(key.made_s),
        "expires_at": rfc3339(key.expires_s),
        "revoked": key.revoked_s is not None,
        "state": state if key.revoked_s is None else "revoked",
    }


def with_verdicts(node: Connection, home: Home, keys: list[Plain]) -> list[Plain]:
    """Put what the node says in the place of what the home knows."""
    chains = {key.key_id: key.grants for key in all_handed(home)}
    verdicts = judge(node, [chains[key["key_id"]] for key in keys])
    return [
        {**key, "state": verdict["state"], "revoked": verdict["state"] == "revoked"}
        for key, verdict in zip(keys, verdicts, strict=True)
    ]


def judge(node: Connection, chains: Sequence[Sequence[Signed]]) -> list[Plain]:
    """Ask a node what keys are worth: `state, detail, role` each."""
    verdicts: list[Plain] = []
    for start in range(0, len(chains), JUDGED_MAX):
        part = chains[start : start + JUDGED_MAX]
        request = pb.JudgeKeysRequest(
            chains=[pb.GrantChain(grants=map(to_wire, chain)) for chain in part]
        )
        verdicts += map(to_plain, node.call(node.node_keys.JudgeKeys, request).verdicts)
    return verdicts


def verdict_of(node: Connection, text: str) -> Plain:
    """Ask a node what one key is worth."""
    return judge(node, [session_key_from_text(text).chain])[0]


def revoke(node: Connection, word: str) -> Plain:
    """Revoke a key, by its id or by itself, with all that were made of it.

    Raises NotPermittedError if this home's operator neither gave it nor is an admin.
    """
    known = None if word.startswith(KEY_PREFIX) else find_handed(node.home, word)
    chain = known.grants if known else session_key_from_text(word).chain
    last = grant_from_signed(chain[-1])
    entry = sign_revocation(node.home, Revoke("grant", last.grant_id), node.now(), node.chance)
    node.call(node.node.AddControl, local_pb.AddControlRequest(entry=to_wire(entry)))
    (verdict,) = judge(node, [chain])
    if verdict["state"] != "revoked":
        raise NotPermittedError(
            "this home's operator did not give that key, and is no admin",
            "revoke it where it was made, or ask an admin",
        )
    if known is not None:
        note_revoked(node.home, known, node.now())
    return {
        "key_id": key_id_of(last.subject),
        "label": known.label if known else None,
        "grant_id": last.grant_id.hex(),
        "revoked": True,
        "revoked_at": rfc3339(node.now()),
    }
