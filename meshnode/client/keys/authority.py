"""What this user may command with: a session key from outside, or one from the home's identity.

Invariant: a key lives no longer than it must, and its text is shown only by `new_key`. Deriving a
key authorises nothing; the grant that the operator signs does, and only if its role is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from meshnode.client.durations import rfc3339, words_of
from meshnode.client.home import check_private, read_plain
from meshnode.client.keys.blaming import KEY_VARIABLE
from meshnode.client.keys.keyfiles import read_secret
from meshnode.client.words import WITHOUT_ROLE, nearest
from meshnode.core.commands.commands import KILL_LIFE_S
from meshnode.core.control.entries import SKEW_S, Forget, Revoke, sign_entry
from meshnode.core.control.grants import (
    ACTIONS_OF_NEW_KEY,
    GRANT_BYTES_MAX,
    GRANT_TTL_S_MAX,
    RENEWAL,
    Grant,
    SessionKey,
    grant,
    grant_from_signed,
    session_key_from_text,
)
from meshnode.core.control.roles import ACTIONS_OF_ROLE, Authorization, authorize
from meshnode.core.errors import (
    DamagedError,
    NotAuthenticatedError,
    NotFoundError,
    PeerError,
    UsageError,
)
from meshnode.core.feeds.headers import header_from_signed
from meshnode.core.keys import Key, Signed, derive_session_key, key_id_of
from meshnode.core.membership.genesis import genesis_from_bytes
from meshnode.core.vocabulary import ACTIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from meshnode.client.home import Home
    from meshnode.core.control.entries import Body
    from meshnode.core.feeds.heads import Head
    from meshnode.core.ids import Chance
    from meshnode.v1.signed_pb2 import Signed as SignedMessage

OWN_KEY_TTL_S = 300
BACKDATE_S = 120  # clocks of owners may be that much behind ours
ID_BYTES = 16
GENERATION = 1


class Scope(msgspec.Struct, frozen=True):
    """What a new key is limited to; `None` means anywhere."""

    actions: tuple[str, ...] = ACTIONS_OF_NEW_KEY  # empty: the same
    nodes: tuple[str, ...] | None = None
    agents: tuple[str, ...] | None = None
    specializations: tuple[str, ...] | None = None
    via: str = ""  # the id of the one node that may deliver its commands


class InviteTerms(msgspec.Struct, frozen=True):
    """What an invite will say: the node that admits, the role it gives, how often, how long."""

    invite_id: bytes
    admitter: str
    role: str  # empty: node only
    uses: int
    ttl_s: int


def mesh_id_of(home: Home) -> str:
    """Read which mesh a home belongs to; raises NotFoundError or DamagedError."""
    try:
        return genesis_from_bytes(read_plain(home.genesis)).mesh_id
    except FileNotFoundError:
        raise NotFoundError(
            "this home belongs to no mesh",
            "session-mesh init makes one, session-mesh join enters one",
        ) from None
    except (PeerError, OSError) as error:
        raise DamagedError(
            f"cannot read {home.genesis}: {error}", "restore it from a backup, or join again"
        ) from error


def session_key(
    home: Home, environment: Mapping[str, str], now_s: float, chance: Chance, action: str = ""
) -> SessionKey:
    """Take the session key of the environment, or make one for five minutes.

    One to kill with stands for as long as a kill does, on either side of now: what goes wrong must
    be stopped also where clocks are off. Such a key is thrown away with the command it signs.

    Raises NotAuthenticatedError when there is neither a key nor an operator identity.
    """
    text = environment.get(KEY_VARIABLE, "").strip()
    if text:
        return session_key_from_text(text)
    if action == "kill":
        return _granted(home, Scope((action,)), _Life(int(now_s), KILL_LIFE_S, KILL_LIFE_S), chance)
    scope = Scope(tuple(sorted(ACTIONS_OF_ROLE["operator"] - {RENEWAL})))
    return _granted(home, scope, _Life(int(now_s), OWN_KEY_TTL_S), chance)


def new_key(home: Home, scope: Scope, ttl_s: int, now_s: float, chance: Chance) -> dict[str, Any]:
    """Make a session key to hand on: `key, key_id, label, ttl, expires_at, actions`.

    Raises UsageError when the lifetime or an action is off, NotAuthenticatedError without identity.
    """
    check_ttl(ttl_s)
    scope = replace(scope, actions=checked_actions(scope.actions) or ACTIONS_OF_NEW_KEY)
    return described(_granted(home, scope, _Life(int(now_s), ttl_s), chance), now_s)


def described(made: SessionKey, now_s: float) -> dict[str, Any]:
    """Say of a key that was just made: `key, key_id, label, ttl, expires_at, actions`."""
    last = grant_from_signed(made.chain[-1])
    return {
        "key": made.to_text(),
        "key_id": key_id_of(made.key.public),
        "label": None,
        "ttl": last.expires_s - int(now_s),
        "expires_at": rfc3339(last.expires_s),
        "actions": sorted(last.actions),
    }


def checked_actions(actions: Sequence[str]) -> tuple[str, ...]:
    """Return actions without repetitions; raises UsageError for one that there is not."""
    for action in actions:
        _check_action(action)
    return tuple(dict.fromkeys(actions))


def check_ttl(ttl_s: int) -> None:
    """Raise UsageError for a key that would live for too long, or not at all."""
    if not 1 <= ttl_s <= GRANT_TTL_S_MAX:
        raise UsageError(
            f"a key lives 1 s to {GRANT_TTL_S_MAX // 86400} days, not {words_of(ttl_s)}"
        )


def authorize_invite(home: Home, terms: InviteTerms, now_s: float) -> Signed:
    """Sign the operator's word that a node may admit devices; the mesh decides if it counts."""
    issued_s = int(now_s)
    return authorize(
        operator_of(home),
        Authorization(
            mesh=mesh_id_of(home),
            invite_id=terms.invite_id,
            admitter=terms.admitter,
            role=terms.role,
            uses=terms.uses,
            issued_s=issued_s,
            expires_s=issued_s + terms.ttl_s,
            signer=b"",  # authorize() puts the key's own
        ),
    )


def sign_forget(
    home: Home, header: SignedMessage, now_s: float, chance: Chance
) -> tuple[Signed, Head]:
    """Sign that a node's rows are hidden up to a header that it has signed; returns its head too.

    Raises NotAuthenticatedError without identity, PeerError if the header is not genuine.
    """
    operator, mesh_id = operator_of(home), mesh_id_of(home)
    signed = Signed(header.type, header.payload, header.signature)
    forget = Forget(header_from_signed(signed, mesh_id))
    return sign_entry(operator, mesh_id, forget, chance, issued_s=int(now_s)), forget.head


def sign_revocation(home: Home, revoke: Revoke, now_s: float, chance: Chance) -> Signed:
    """Sign with the operator's key that a key, a node or a grant counts for nothing.

    Raises NotAuthenticatedError without identity; whether it has effect is for the mesh to say.
    """
    return revocation_by(operator_of(home), mesh_id_of(home), revoke, now_s, chance)


def revocation_by(
    issuer: Key, mesh_id: str, revoke: Revoke, now_s: float, chance: Chance
) -> Signed:
    """Sign the same with any key. That of a grant lasts for as long as one may, and a day more."""
    life_s = GRANT_TTL_S_MAX + SKEW_S if revoke.what == "grant" else None
    expires_s = None if life_s is None else int(now_s) + life_s
    return sign_entry(issuer, mesh_id, revoke, chance, issued_s=int(now_s), expires_s=expires_s)


def operator_id(home: Home) -> str:
    """Name the operator identity of a home; raises NotAuthenticatedError if it has none."""
    return key_id_of(operator_of(home).public)


def sign_body(
    home: Home, body: Body, now_s: float, chance: Chance, *, expires_s: int | None = None
) -> Signed:
    """Sign an entry of the control set; raises NotAuthenticatedError without identity."""
    mesh_id = mesh_id_of(home)
    operator = operator_of(home)
    return sign_entry(operator, mesh_id, body, chance, issued_s=int(now_s), expires_s=expires_s)


class _Life(msgspec.Struct, frozen=True):
    now_s: int
    ttl_s: int
    backdate_s: int = BACKDATE_S

    @property
    def expires_s(self) -> int:
        return self.now_s + self.ttl_s


def _granted(home: Home, scope: Scope, life: _Life, chance: Chance) -> SessionKey:
    operator = operator_of(home)
    mesh_id = mesh_id_of(home)
    root = read_secret(home.session_root)
    key = derive_session_key(root, mesh_id, chance(ID_BYTES), GENERATION)
    link = signed_grant(
        operator,
        Grant(
            mesh=mesh_id,
            issuer=operator.public,
            subject=key.public,
            actions=scope.actions,
            not_before_s=life.now_s - life.backdate_s,
            expires_s=life.expires_s,
            grant_id=chance(ID_BYTES),
            nodes=scope.nodes,
            agents=scope.agents,
            specializations=scope.specializations,
            via=scope.via,
        ),
    )
    return SessionKey(key, (link,))


def signed_grant(issuer: Key, value: Grant) -> Signed:
    """Sign a grant; raises UsageError for one that no node would read, as it names too much."""
    signed = grant(issuer, value)
    if (size := len(signed.payload)) > GRANT_BYTES_MAX:
        raise UsageError(
            f"a key limited to so much takes {size:,} bytes, and {GRANT_BYTES_MAX:,} is all it has",
            "name fewer agents, nodes or specializations, or make several keys",
        )
    return signed


def operator_of(home: Home) -> Key:
    """Read the key that commands; raises NotAuthenticatedError in a home that only obeys."""
    if home.path.exists():
        check_private(home.path)
    try:
        return Key(read_secret(home.operator_key))
    except NotFoundError:
        raise NotAuthenticatedError(
            f"this home has no role in the mesh: it {WITHOUT_ROLE}",
            "set SESSION_API_KEY, or join with an invite of session-mesh invite --role operator",
        ) from None


def _check_action(action: str) -> None:
    if action not in ACTIONS:
        hint = f"one of: {', '.join(sorted(ACTIONS))}"
        raise UsageError(f"no such action: {action[:40]!r}{nearest(action, ACTIONS)}", hint)
