"""Orders of a bearer: the session that is meant, a command signed with their key, its outcome.

Invariants: the node signs nothing here in its own name. The owner of the target verifies the
bearer's own rights, as if they had come themselves, and that they came through this node. What was
sent is answered with its command id, whatever became of it.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from meshnode.client.messages import to_plain
from meshnode.client.orders import COMMAND_ID_BYTES, outcome_of, sign_order
from meshnode.client.targets import (
    DELIVERY_TIMEOUT_S,
    Order,
    Selection,
    Target,
    has_ended,
    resolve,
)
from meshnode.client.wishes import GRACE_S, already_ended, check_lives, kill_args, order_to
from meshnode.core.commands import command_from_signed
from meshnode.core.errors import (
    ConflictError,
    MeshError,
    NotFoundError,
    StaleError,
    UnreachableError,
)
from meshnode.core.ids import NodeId, b32
from meshnode.core.registry import place_of, specialist
from meshnode.gateway.problems import Problem, problem_of
from meshnode.gateway.repeats import Repeats, Wish
from meshnode.rpc.local import list_sessions
from meshnode.v1 import local_service_pb2 as pb

if TYPE_CHECKING:
    from meshnode.app.bearers import Bearer
    from meshnode.app.ports import Clock
    from meshnode.app.queries import Queries
    from meshnode.core.commands import Command
    from meshnode.core.ids import Chance
    from meshnode.core.keys import Signed
    from meshnode.rpc.commands import Bringer

    Plain = dict[str, Any]

PAGE_MAX = 1000  # sessions that one name may fit
LISTED = "GET /sessions?filter=all lists what is known"


class Actor:
    """Orders what bearers want, of any node's sessions."""

    def __init__(
        self,
        queries: Queries,
        bringer: Bringer,
        journal_generation: int,
        clock: Clock,
        chance: Chance,
    ) -> None:
        self._queries = queries
        self._bringer = bringer
        self._journal_generation = journal_generation
        self._clock = clock
        self._chance = chance
        self._repeats = Repeats()

    def find(self, target: Target) -> Plain:
        """Return the one session meant, by its whole id or agent id; raises a MeshError."""
        try:
            found = resolve(target, self._listed)
        except NotFoundError as error:
            error.hint = LISTED
            raise
        if target.session_id not in {"", found["session_id"]}:  # prefixes are for people who type
            raise NotFoundError(f"no session {target.session_id!r}", "give the whole session id")
        return found

    async def steer(
        self, bearer: Bearer, target: Target, args: Plain, command_id: bytes = b""
    ) -> Plain:
        """Tell an agent something; returns the outcome that its owner signed.

        Given an id, it is carried out once, however often it is asked for. Raises a MeshError, or
        Problem with the command id once there is a command.
        """
        return await self._done(bearer, Wish(target, "steer", args), command_id)

    async def kill(
        self, bearer: Bearer, target: Target, command_id: bytes = b"", *, force: bool
    ) -> Plain:
        """End a session with its whole process tree, as `steer`; what has ended is left alone."""
        args = kill_args(GRACE_S, force=force)
        return await self._done(bearer, Wish(target, "kill", args), command_id)

    async def register(
        self, bearer: Bearer, agent_id: str, specialization: str, attributes: dict[str, str]
    ) -> Plain:
        """Enter an agent into the registry, through the feed of this node."""
        args = asdict(specialist(agent_id, specialization, attributes))
        return await self._change_here(bearer, "register", args)

    async def unregister(self, bearer: Bearer, agent_id: str, specialization: str) -> Plain:
        """Take an agent out of the registry, whoever entered it."""
        args = asdict(place_of(agent_id, specialization))
        return await self._change_here(bearer, "unregister", args)

    async def _change_here(self, bearer: Bearer, action: str, args: Plain) -> Plain:
        here = self._queries.mesh.self_id
        order = Order(here, self._journal_generation, action, args=args)
        outcome = await self._sent(self._signed(bearer, order, self._chance(COMMAND_ID_BYTES)))
        return {name: args[name] for name in ("agent_id", "specialization")} | outcome

    async def _done(self, bearer: Bearer, wish: Wish, given_id: bytes) -> Plain:
        """Order it, unless it was: then its session may have ended by that, and is not looked up.

        A session that has started anew meanwhile is looked up once more.
        """
        if (known := self._repeats.known(bearer, given_id, wish)) is not None:
            return await self._sent(known)
        command_id = given_id or self._chance(COMMAND_ID_BYTES)
        session = self.find(wish.target)
        try:
            outcome = await self._ordered(bearer, wish, session, command_id)
        except StaleError:
            again = replace(wish.target, session_id=session["session_id"])
            outcome = await self._ordered(bearer, wish, self.find(again), command_id)
        if not given_id:  # an answer without a receipt leaves it there: that may be repeated
            self._repeats.drop(bearer, command_id)
        return outcome

    async def _ordered(
        self, bearer: Bearer, wish: Wish, session: Plain, command_id: bytes
    ) -> Plain:
        if wish.action == "kill" and has_ended(session):
            return already_ended(session) | {"command_id": b32(command_id)}
        check_lives(session)
        command = self._signed(bearer, order_to(session, wish.action, wish.args), command_id)
        self._repeats.keep(bearer, command_id, wish, command)  # the answer may get lost
        return await self._sent(command)

    def _signed(self, bearer: Bearer, order: Order, command_id: bytes) -> Signed:
        mesh_id, now_s = self._queries.mesh.genesis.mesh_id, self._clock.wall_s()
        return sign_order(bearer.key, mesh_id, order, command_id, now_s)

    async def _sent(self, command: Signed) -> Plain:
        """Bring a command to its owner; raises StaleError, or Problem with the command id."""
        said = command_from_signed(command)
        timeout_s = DELIVERY_TIMEOUT_S + said.args.get("grace_s", 0)
        try:
            receipt = await self._bringer.submit(NodeId(said.node), command, timeout_s)
            return outcome_of(command, receipt)
        except StaleError:
            raise
        except MeshError as error:
            raise _with_id(error, said) from error

    def _listed(self, selection: Selection) -> list[Plain]:
        if selection == Selection():
            return []  # asked only for a hint at a typing error, which is no program's
        request = pb.ListSessionsRequest(**asdict(selection), limit=PAGE_MAX)
        return [to_plain(one) for one in list_sessions(self._queries, request).sessions]


def _with_id(error: MeshError, command: Command) -> Problem:
    """Word what became of a command that has no receipt, and how to go on."""
    command_id = b32(command.command_id)
    if isinstance(error, ConflictError):
        error.hint = "the id was used: by another key, at another node, or before this one started"
    if isinstance(error, UnreachableError):
        error.hint = f"ask again with the command id {command_id}: it acts once"
        if command.action == "kill":
            error.hint += "; an operator's session-mesh kill --standing waits for its node"
    return problem_of(error, {"command_id": command_id})
