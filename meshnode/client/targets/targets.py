"""What a caller says: which session is meant, what shall be done with it, which ones to list.

Invariant: a name that fits two live sessions is never guessed; it is an error that lists both. So
is a word that is an agent's name and the start of another session's id: anybody chooses names. Of
rows with the same session id, one that proves to be its owner's comes before what copies it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, get_args

import msgspec
from msgspec.structs import replace

from meshnode.client.durations import words_of
from meshnode.client.words import nearest, too_short
from meshnode.core.errors import ConflictError, NotFoundError, UsageError
from meshnode.core.ids import (
    BASE32,
    PREFIX_CHARS_MIN,
    SESSION_ID_CHARS,
    names_apart,
    pasted,
    session_id_of,
)
from meshnode.core.sessions.specializations import check_specialization

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Session = dict[str, Any]
    Ask = Callable[["Selection"], Sequence[Session]]

DELIVERY_TIMEOUT_S = 10.0
CANDIDATES_SHOWN_MAX = 10
CANDIDATES_COUNTED_MAX = 100  # more: said so, not how many
STANDS_S = 86400  # a standing kill, unless told
STANDS_S_MAX = 7 * 86400
Filter = Literal[
    "alive",
    "active",
    "idle",
    "waiting",
    "suspended",
    "unreachable",
    "ended",
    "closed",
    "failed",
    "killed",
    "all",
]
FILTERS: tuple[str, ...] = get_args(Filter)
WAITS = ("accepted", "delivered", "applied")
EVENT_KINDS = ("node", "session", "agent", "cost", "budget")
NOTHING_NEAR = (
    "session-mesh list --filter all shows what is known, session-mesh cost --by session what was"
    " counted"
)
WORD_CHARS_MAX = 512  # node/agent has 64 + 1 + 256 at most


def one_specialization(name: str) -> str:
    """Return the name by which something is sought; raises UsageError for `a,b`."""
    check_specialization(name, "look for one at a time; what has a comma is found by its id")
    return name


class AmbiguousError(ConflictError):
    """A name fits several sessions; `candidates` are they, as listed. Nothing changed.

    `by_node` is whether node and agent together mean one of them.
    """

    def __init__(self, word: str, candidates: Sequence[Session], hint: str = "") -> None:
        nodes = names_apart({one["node_id"]: one["node_name"] for one in candidates})
        names = [f"{nodes[one['node_id']]}/{one['agent_id']}" for one in candidates]
        self.candidates = candidates
        self.by_node = len(set(names)) == len(names)
        each = zip(names[:CANDIDATES_SHOWN_MAX], candidates, strict=False)
        shown = ", ".join(f"{name} ({one['session_id']})" for name, one in each)
        count, most = len(candidates), CANDIDATES_COUNTED_MAX
        super().__init__(
            f"{word!r} fits {count if count <= most else f'more than {most}'} sessions: {shown}",
            hint or f"say which: {'node/agent, or ' * self.by_node}a session id",
        )


class Selection(msgspec.Struct, frozen=True):
    """Which sessions to list; empty fields select everything, an empty filter what is not old."""

    filter: str = ""
    node: str = ""
    specialization: str = ""
    owner: str = ""
    agent_id: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    sort: str = ""
    session_id: str = ""


class NewSession(msgspec.Struct, frozen=True):
    """A process that the caller is about to start; empty fields take the node's defaults."""

    agent_id: str = ""
    title: str = ""
    specializations: tuple[str, ...] = ()
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    owner: str = ""
    cwd: str = ""
    steer_format: str = "text"
    interrupt: str = ""
    adapter: str = ""


class Order(msgspec.Struct, frozen=True):
    """What shall be done with one session, or with one node when `session_id` is empty."""

    node_id: str
    epoch: int
    action: str
    session_id: str = ""
    args: dict[str, Any] = msgspec.field(default_factory=dict)


class Delivery(msgspec.Struct, frozen=True):
    """How long to try to reach the owner; with a command id, a retry that never acts twice.

    `wait` is what to wait for: that it is accepted, or for all that the owner can tell.
    """

    timeout_s: float = DELIVERY_TIMEOUT_S
    command_id: str = ""
    wait: str = WAITS[1]


class Terms(msgspec.Struct, frozen=True):
    """How a standing kill shall be carried out, and until when it may be."""

    expires_s: int = STANDS_S
    force: bool = False
    grace_s: int = 5

    def checked(self) -> Terms:
        """Return them as they are; raises UsageError."""
        if not 1 <= self.expires_s <= STANDS_S_MAX:
            days = STANDS_S_MAX // 86400
            raise UsageError(
                f"an order stands for 1 s to {days} days, not {words_of(self.expires_s)}"
            )
        return self


class Target(msgspec.Struct, frozen=True):
    """What the user typed: one of the three, perhaps narrowed to a node."""

    name: str = ""  # a session id, a prefix of one, an agent id, or node/agent
    session_id: str = ""
    agent_id: str = ""
    node: str = ""

    def __str__(self) -> str:
        """The word that the user gave."""
        return self.name or self.session_id or self.agent_id


class Wanted(msgspec.Struct, frozen=True):
    """Which events; empty is all. `about` is an id, a name of a node or agent, or node/agent."""

    kinds: tuple[str, ...] = ()
    about: str = ""

    def checked(self) -> Wanted:
        """Return it as it is; raises UsageError."""
        for kind in self.kinds:
            if kind not in EVENT_KINDS:
                hint = f"one of: {', '.join(EVENT_KINDS)}"
                raise UsageError(f"there are no events of kind {kind[:60]!r}", hint)
        check_lengths({"name": self.about})
        return self


def resolve(target: Target, ask: Ask) -> Session:
    """Return the session meant; raises NotFoundError, or ConflictError listing the candidates."""
    if not str(target):
        raise UsageError("which session?", "give a session id or an agent id")
    check_lengths({"name of a session": str(target), "name of a node": target.node})
    found = _matches(target, ask) or ([] if target.node else _at_node(target, ask))
    if not found:
        raise NotFoundError(f"no session or agent {str(target)!r}", _nearest(str(target), ask))
    return _only(str(target), found)


def _at_node(target: Target, ask: Ask) -> list[Session]:
    """Look for what was written as node/agent: such a node there need not be.

    A node may be written as name/start of its id, where it has namesakes; an agent with a slash.
    """
    words = target.name.split("/", 2)
    if not all(words[:2]) or len(words) == 1:
        return []
    if len(words) > 2 and words[2]:  # noqa: PLR2004 - name, start of an id, agent
        with suppress(NotFoundError):
            at = replace(target, name=words[2], node="/".join(words[:2]))
            if found := _matches(at, ask):
                return found
    agent = "/".join(words[1:])
    try:
        return _matches(replace(target, name=agent, node=words[0]), ask)
    except NotFoundError as error:
        said = f"no session or agent {target.name!r}: {error.message}"
        raise NotFoundError(said, error.hint) from error


def check_lengths(words: Mapping[str, str]) -> None:
    """Raise UsageError for a word that is longer than anything in the mesh can be."""
    for name, word in words.items():
        if len(word) > WORD_CHARS_MAX:
            raise UsageError(
                f"a {name} has at most {WORD_CHARS_MAX} characters, not {len(word)}",
                "was something else meant to be there?",
            )


def _matches(target: Target, ask: Ask) -> list[Session]:
    """A whole session id first; else an agent's name, or the start of an id, but never both.

    Raises AmbiguousError for both: who takes the start of somebody's session id for a name, also
    for one that has ended, would get what is meant for that session.
    """
    everywhere = Selection(filter="all", node=target.node)
    by_id: list[Session] = []
    wanted = target.session_id or target.name
    if _may_be_session_id(wanted):
        listed = ask(replace(everywhere, session_id=wanted))
        by_id = [one for one in listed if str(one["session_id"]).startswith(wanted)]
        by_id = _without_copies(by_id)
    if exact := [one for one in by_id if one["session_id"] == wanted]:
        return exact
    if agent := target.agent_id or (target.name if not target.session_id else ""):
        listed = ask(replace(everywhere, agent_id=agent))
        by_agent = _without_copies([one for one in listed if one["agent_id"] == agent])
        if by_agent and (others := [one for one in by_id if one["agent_id"] != agent]):
            which = pasted(agent)
            hint = f"say which: a whole session id, or --session {which} or --agent-id {which}"
            raise AmbiguousError(agent, [*_foremost(others), *_foremost(by_agent)], hint)
        return by_agent or by_id
    return by_id


def _without_copies(found: list[Session]) -> list[Session]:
    """Leave out rows whose session id is proved to be another node's."""
    proved = {one["session_id"] for one in found if _is_proved(one)}
    return [one for one in found if one["session_id"] not in proved or _is_proved(one)]


def _is_proved(session: Session) -> bool:
    start = session.get("session_start") or session["session_epoch"]
    return bool(session["session_id"] == session_id_of(session["node_id"], start))


def _may_be_session_id(text: str) -> bool:
    return PREFIX_CHARS_MIN <= len(text) <= SESSION_ID_CHARS and set(text) <= BASE32


def _only(word: str, found: Sequence[Session]) -> Session:
    foremost = _foremost(found)
    if len(foremost) > 1:
        raise AmbiguousError(word, foremost)
    return foremost[0]


def _foremost(found: Sequence[Session]) -> Sequence[Session]:
    """Leave those that live, or have not ended; else an agent's last, or of several agents all."""
    live = [one for one in found if one["alive"]]
    if present := live or [one for one in found if not has_ended(one)]:
        return present
    ids = {one["session_id"] for one in found}
    agents = {one["agent_id"] for one in found}
    if len(ids) > 1 and len(agents) > 1:
        return found
    return [max(found, key=lambda one: one["ended_at"] or one["created_at"])]


def has_ended(session: Session) -> bool:
    """Whether a listed session is over for good."""
    return bool(session["phase"] == "CLOSED")


def _nearest(word: str, ask: Ask) -> str:
    wanted = word.rpartition("/")[2] or word
    if set(wanted) <= BASE32 and len(wanted) < PREFIX_CHARS_MIN:
        known = ask(Selection(filter="all"))
        if hint := too_short(wanted, (str(one["session_id"]) for one in known)):
            return hint
    near = nearest(wanted, [one for one in _names(ask(Selection())) if one != wanted])
    return near.strip(" ()") or NOTHING_NEAR


def _names(sessions: Iterable[Session]) -> list[str]:
    names = {str(one["agent_id"]) for one in sessions}
    return sorted(names.union(str(one["session_id"]) for one in sessions))
