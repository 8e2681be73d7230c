"""What a key may do: grants in chains, and the session keys that carry them.

Invariant: a chain only narrows, since every link must permit. Holding a key authorises nothing; the
chain does, and its first issuer must hold a role.

A renewal key is one whose last grant names `keys`: it makes other keys and does nothing else, and
the other actions of that grant are what these may be given.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.core.errors import NotAuthenticatedError, NotPermittedError, PeerError
from meshnode.core.keys import Key, Signed, decode_checked, encode_checked, parse_public, verify
from meshnode.core.packing import pack, typed, unpack, unpack_map
from meshnode.core.vocabulary import ACTIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CHAIN_LINKS_MAX = 4  # longer: NotAuthenticatedError
PARSED_MAX = 128  # grants remembered in their parsed form; 8 KiB each at most
GRANT_BYTES_MAX = 4096  # larger: NotAuthenticatedError
GRANT_TTL_S_MAX = 30 * 86400
CLOCKS_S = 86400  # beyond it, for clocks that differ
RENEWAL = "keys"  # the action of renewal keys
GRANT_ID_BYTES = 16  # a revocation names no other
KEY_PREFIX = "smk1_"
KEY_TEXT_CHARS_MAX = 24 * 1024
ACTIONS_OF_NEW_KEY = ("read", "steer", "kill", "register")
ANOTHER_KEY = "make a new one: session-mesh keys new"  # the hint for who has an expired one


class KeyTimeError(NotAuthenticatedError):
    """The key is not good at this time; it may have been, or will be. Nothing changed."""


class Grant(msgspec.Struct, frozen=True):
    """What a subject key may do, and where. `None` means anywhere; an empty tuple means nowhere."""

    mesh: str
    issuer: bytes
    subject: bytes
    actions: tuple[str, ...]
    not_before_s: int
    expires_s: int
    grant_id: bytes
    depth: int = 0
    parent: bytes = b""
    nodes: tuple[str, ...] | None = None
    agents: tuple[str, ...] | None = None
    sessions: tuple[str, ...] | None = None
    specializations: tuple[str, ...] | None = None
    via: str = ""

    def permits(self, request: Request) -> bool:
        """Whether every limit of this link allows the request."""
        return (
            request.action in self.actions
            and _within(request.node, self.nodes)
            and _within(request.agent, self.agents)
            and _within(request.session, self.sessions)
            and (
                self.specializations is None
                or any(spec in self.specializations for spec in request.specializations)
            )
            and (not self.via or self.via == request.via)
        )


class Request(msgspec.Struct, frozen=True):
    """What somebody wants to do, in the owner's own words: never in those of the command."""

    action: str
    node: str
    session: str = ""
    agent: str = ""
    specializations: tuple[str, ...] = ()
    via: str = ""  # node id of the peer that delivered it


def _within(value: str, allowed: tuple[str, ...] | None) -> bool:
    return allowed is None or value in allowed


def grant(issuer: Key, value: Grant) -> Signed:
    """Sign a grant."""
    return issuer.sign("grant", _grant_to_map(value))


def _grant_to_map(value: Grant) -> dict[str, Any]:
    return {
        "v": 1,
        "mesh": value.mesh,
        "issuer": value.issuer,
        "subject": value.subject,
        "actions": list(value.actions),
        "nbf": value.not_before_s,
        "exp": value.expires_s,
        "id": value.grant_id,
        "depth": value.depth,
        "parent": value.parent,
        "nodes": _listed(value.nodes),
        "agents": _listed(value.agents),
        "sessions": _listed(value.sessions),
        "specs": _listed(value.specializations),
        "via": value.via,
    }


_GRANT_FIELDS = frozenset(
    {"v", "mesh", "issuer", "subject", "actions", "nbf", "exp", "id", "depth", "parent"}
    | {"nodes", "agents", "sessions", "specs", "via"}
)


@lru_cache(maxsize=PARSED_MAX)
def grant_from_signed(signed: Signed) -> Grant:
    """Decode a grant whose signature is checked elsewhere; raises PeerError."""
    if len(signed.payload) > GRANT_BYTES_MAX:
        raise PeerError("a grant is larger than 4 KiB")
    value = unpack_map(signed.payload)
    if set(value) != _GRANT_FIELDS or value["v"] != 1:
        raise PeerError("a grant of a version that this node does not know")
    try:
        read = Grant(
            mesh=typed(value["mesh"], str),
            issuer=typed(value["issuer"], bytes),
            subject=typed(value["subject"], bytes),
            actions=_tuple(value["actions"]) or (),
            not_before_s=typed(value["nbf"], int),
            expires_s=typed(value["exp"], int),
            grant_id=typed(value["id"], bytes),
            depth=typed(value["depth"], int),
            parent=typed(value["parent"], bytes),
            nodes=_tuple(value["nodes"]),
            agents=_tuple(value["agents"]),
            sessions=_tuple(value["sessions"]),
            specializations=_tuple(value["specs"]),
            via=typed(value["via"], str),
        )
    except TypeError as error:
        raise PeerError(f"a grant field is off: {error}") from error
    if len(read.grant_id) != GRANT_ID_BYTES:
        raise PeerError(f"a grant whose id is not {GRANT_ID_BYTES} bytes could not be revoked")
    parse_public(read.subject)
    return read


def _listed(values: tuple[str, ...] | None) -> list[str] | None:
    return None if values is None else list(values)


def _tuple(values: Any) -> tuple[str, ...] | None:  # noqa: ANN401 - whatever MessagePack carries
    if values is None:
        return None
    return tuple(typed(value, str) for value in typed(values, list))


def verify_chain(chain: Sequence[Signed], mesh_id: str) -> list[Grant]:
    """Check signatures, links and narrowing, not time; raises NotAuthenticatedError."""
    if not 1 <= len(chain) <= CHAIN_LINKS_MAX:
        raise NotAuthenticatedError(f"a grant chain has 1 to {CHAIN_LINKS_MAX} links")
    grants: list[Grant] = []
    try:
        for depth, signed in enumerate(chain):
            link = grant_from_signed(signed)
            verify(signed, "grant", link.issuer)
            if link.mesh != mesh_id:
                raise PeerError("a grant of another mesh")
            if link.depth != depth:
                raise PeerError("a grant stands at the wrong place of its chain")
            if grants and not _follows(link, grants[-1], chain[depth - 1]):
                raise PeerError("a grant does not follow from the one before")
            grants.append(link)
    except PeerError as error:
        raise NotAuthenticatedError(f"this key proves nothing here: {error.message}") from error
    return grants


def _follows(child: Grant, parent: Grant, signed_parent: Signed) -> bool:
    return child.issuer == parent.subject and child.parent == signed_parent.hash


def check_time(grants: Sequence[Grant], now_s: float, skew_s: float) -> None:
    """Raise KeyTimeError when a link is not yet valid or no longer."""
    for link in grants:
        if now_s < link.not_before_s - skew_s:  # first: a clock behind makes keys look long
            raise KeyTimeError(
                "this session key is not valid yet", "compare the clocks of the two machines"
            )
        if link.expires_s > now_s + GRANT_TTL_S_MAX + CLOCKS_S:
            raise KeyTimeError(  # it would outlive a revocation of its id
                "this session key is valid for more than 30 days", "no key is: make another"
            )
        if now_s > link.expires_s + skew_s:
            raise KeyTimeError("this session key has expired", ANOTHER_KEY)


def check_permission(grants: Sequence[Grant], request: Request) -> None:
    """Raise NotPermittedError unless every link of the chain allows the request."""
    if is_renewal(grants) and request.action != RENEWAL:
        raise NotPermittedError(
            "this key makes other keys, and does nothing else",
            "make one with it: session-mesh keys new",
        )
    if all(link.permits(request) for link in grants):
        return
    actions = actions_of(grants)
    if request.action not in actions:
        raise NotPermittedError(
            f"this key may not {said_of(request.action)}",
            f"it may: {', '.join(sorted(actions)) or 'nothing'}",
        )
    raise NotPermittedError(
        f"this key may {said_of(request.action)}, but not here",
        "its grant names other nodes, agents, sessions or specializations",
    )


def actions_of(grants: Sequence[Grant]) -> frozenset[str]:
    """Return what every link of a chain allows; of a renewal key, what it may hand on as well."""
    return ACTIONS.intersection(*(link.actions for link in grants))


def common_of(limits: Iterable[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """Return what each of several limits names; None: anywhere."""
    named = [one for one in limits if one is not None]
    return tuple(one for one in named[-1] if all(one in each for each in named)) if named else None


def said_of(action: str) -> str:
    """Return an action as what somebody may do."""
    verbs = {"metrics": "read metrics", "keys": "make keys", "admin": "administer"}
    return verbs.get(action, action.replace("_", " "))


def is_renewal(grants: Sequence[Grant]) -> bool:
    """Whether the last key of a chain only makes other keys."""
    return RENEWAL in grants[-1].actions


class SessionKey(msgspec.Struct, frozen=True):
    """A key and the chain that gives it power: what `SESSION_API_KEY` holds."""

    key: Key
    chain: tuple[Signed, ...]

    def to_text(self) -> str:
        """Encode as `smk1_…`."""
        body = pack([1, self.key.seed, [link.to_list() for link in self.chain]])
        return KEY_PREFIX + encode_checked(body, b"smk1")


def session_key_from_text(text: str) -> SessionKey:
    """Decode `smk1_…`; raises NotAuthenticatedError with a sentence that never repeats the key."""
    hint = "make one with session-mesh keys new, or unset SESSION_API_KEY"
    text = text.strip()
    if not text.startswith(KEY_PREFIX) or len(text) > KEY_TEXT_CHARS_MAX:
        raise NotAuthenticatedError(f"not a session key: it should begin with {KEY_PREFIX}", hint)
    try:
        body = decode_checked(text.removeprefix(KEY_PREFIX), b"smk1")
        version, seed, links = unpack(body)
        if version != 1:
            raise PeerError("made by a newer version")
        chain = tuple(
            Signed("grant", typed(payload, bytes), typed(mark, bytes)) for payload, mark in links
        )
        key = SessionKey(Key(typed(seed, bytes)), chain)
        if not chain or grant_from_signed(chain[-1]).subject != key.key.public:
            raise PeerError("its grant is for another key")
    except (PeerError, ValueError, TypeError) as error:
        raise NotAuthenticatedError(f"not a session key: {error}", hint) from None
    return key
