"""Orders of a bearer: the session that is meant, a command signed with their key, its outcome.

Invariants: the node signs nothing here in its own name. The owner of the target verifies the
bearer's own rights, as if they had come themselves, and that they came through this node. Nothing
is signed, sent or told of a session for who clearly lacks the right: owners take so many commands
of this node, and those are for who has it. What was sent is answered with its command id, whatever
became of it.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict, replace

from meshnode.app.commands.quotas import OF_SIGNER, Quota
from meshnode.app.pieces import in_pieces
from meshnode.client.commands.orders import COMMAND_ID_BYTES, forgotten, outcome_of, sign_order
from meshnode.client.targets.targets import (
    DELIVERY_TIMEOUT_S,
    AmbiguousError,
    Order,
    Target,
    has_ended,
    resolve,
)
from meshnode.client.targets.wishes import GRACE_S, already_ended, check_lives, kill_args, order_to
from meshnode.core.commands.commands import GRANTED_AS, command_from_signed
from meshnode.core.errors import (
    ConflictError,
    MeshError,
    NotFoundError,
    NotPermittedError,
    StaleError,
    UnreachableError,
)
from meshnode.core.ids import NodeId, b32
from meshnode.core.sessions.registry import place_of, specialist
from meshnode.gateway.candidates import candidates
from meshnode.gateway.problems import Problem, partly_ambiguous, problem_of
from meshnode.gateway.repeats import Repeats, Wish, family_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from meshnode.app.commands.bearers import Bearer
    from meshnode.app.ports import Clock
    from meshnode.app.queries.queries import Queries
    from meshnode.core.commands.commands import Command
    from meshnode.core.ids import Chance
    from meshnode.core.keys import Signed
    from meshnode.core.sessions.sessions import SessionRecord
    from meshnode.rpc.commands import Bringer

    Plain = dict[str, Any]

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
        self._first: dict[bytes, asyncio.Future[bool]] = {}  # by hash: commands under way
        self._pace = Quota(OF_SIGNER, "this key")  # an owner takes no more of it, but of us

    async def find(self, bearer: Bearer, target: Target, action: str) -> Plain:
        """Return the one session meant, by its whole id or agent id, for what a bearer may do.

        Raises a MeshError, or Problem 409 that names no session which the bearer may not see.
        """
        found = await self._found(bearer, target, action)
        self._check(bearer, action, found)
        return found

    async def _found(self, bearer: Bearer, target: Target, action: str) -> Plain:
        try:
            self._check_node(target.node)
        except ConflictError:  # it names both
            bearer.check(action)
            raise
        is_theirs = partial(bearer.may, action)
        listed = await in_pieces(candidates(self._queries, target, is_theirs))
        try:
            found = resolve(target, lambda _: listed)
        except NotFoundError as error:
            error.hint = LISTED
            if target.session_id:  # it may well be an agent's name
                error.message = f"no session {target.session_id!r}"
                error.hint = f"an agent is named by agent_id; {LISTED}"
            raise
        except AmbiguousError as error:
            self._check_any(bearer, action, error.candidates)
            seen = [one for one in error.candidates if self._may_see(bearer, one)]
            if len(seen) < len(error.candidates):
                raise partly_ambiguous(target, seen) from None
            raise
        if target.session_id not in {"", found["session_id"]}:  # prefixes are for people who type
            raise NotFoundError(f"no session {target.session_id!r}", "give the whole session id")
        return found

    def _check_node(self, name: str) -> None:
        if name:
            self._queries.node_named(name)

    def _check(self, bearer: Bearer, action: str, session: Plain) -> None:
        if (record := self._record(session)) is None:
            raise NotFoundError(f"no session {session['session_id']!r}", LISTED)
        bearer.check_for(action, session["node_id"], record)

    def _check_any(self, bearer: Bearer, action: str, sessions: Sequence[Plain]) -> None:
        """Raise NotPermittedError if the bearer may do this with none of them."""
        for session in sessions[:-1]:
            with suppress(NotPermittedError):
                return self._check(bearer, action, session)
        return self._check(bearer, action, sessions[-1])

    def _may_see(self, bearer: Bearer, session: Plain) -> bool:
        record = self._record(session)
        return record is not None and bearer.may_see(session["node_id"], record)

    def _record(self, session: Plain) -> SessionRecord | None:
        return self._queries.mesh.tables.session(session["node_id"], session["session_id"])

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
        bearer.check(GRANTED_AS.get(action, action))
        self._charge(bearer)
        here = self._queries.mesh.self_id
        order = Order(here, self._journal_generation, action, args=args)
        outcome = await self._sent(self._signed(bearer, order, self._chance(COMMAND_ID_BYTES)))
        return {name: args[name] for name in ("agent_id", "specialization")} | outcome

    async def _done(self, bearer: Bearer, wish: Wish, given_id: bytes) -> Plain:
        """Order it, unless it was: then its session may have ended by that, and is not looked up.

        A session that has started anew meanwhile is looked up once more.
        """
        if (known := self._repeats.known(bearer, given_id, wish)) is not None:
            with suppress(StaleError):
                return await self._repeated(bearer, known)
        command_id = given_id or self._chance(COMMAND_ID_BYTES)
        is_given = bool(given_id)
        session = await self.find(bearer, wish.target, wish.action)
        try:
            outcome = await self._ordered(bearer, wish, session, command_id, is_given=is_given)
        except StaleError:
            again = replace(wish.target, session_id=session["session_id"])
            session = await self.find(bearer, again, wish.action)
            outcome = await self._ordered(bearer, wish, session, command_id, is_given=is_given)
        self._repeats.answered(bearer, command_id)
        return outcome

    async def _ordered(
        self, bearer: Bearer, wish: Wish, session: Plain, command_id: bytes, *, is_given: bool
    ) -> Plain:
        # Who asks twice at once has looked for the session twice, and may have found two.
        if (known := self._repeats.known(bearer, command_id, wish)) is not None:
            return await self._repeated(bearer, known)
        keep = partial(self._repeats.keep, bearer, command_id, wish, is_given=is_given)
        if wish.action == "kill" and has_ended(session):
            self._charge(bearer)  # it takes a place, too
            outcome = already_ended(session) | {"command_id": b32(command_id)}
            keep(outcome)
            return outcome
        check_lives(session)
        self._charge(bearer)
        command = self._signed(bearer, order_to(session, wish.action, wish.args), command_id)
        keep(command)  # the answer may get lost
        try:
            with self._first_sending(command):
                return await self._sent(command)
        except StaleError:  # it was not carried out
            self._repeats.drop(bearer, command_id)
            raise

    @contextmanager
    def _first_sending(self, command: Signed) -> Iterator[None]:
        """Tell who repeats it meanwhile whether it came too late, and so was not carried out."""
        is_stale = self._first[command.hash] = asyncio.get_running_loop().create_future()
        try:
            yield
        except StaleError:
            is_stale.set_result(True)
            raise
        finally:
            self._first.pop(command.hash, None)
            if not is_stale.done():
                is_stale.set_result(False)

    def _charge(self, bearer: Bearer) -> None:
        """Count an order, for all keys that are made of the same; raises ExhaustedError."""
        self._pace.take(family_of(bearer), self._clock.steady_s())

    def _signed(self, bearer: Bearer, order: Order, command_id: bytes) -> Signed:
        mesh_id, now_s = self._queries.mesh.genesis.mesh_id, self._clock.wall_s()
        return sign_order(bearer.key, mesh_id, order, command_id, now_s)

    async def _repeated(self, bearer: Bearer, known: Signed | Plain) -> Plain:
        """Tell what was told before, or send the very command once more.

        Raises StaleError where it is being ordered anew.
        """
        if isinstance(known, dict):
            return known
        self._charge(bearer)
        first = self._first.get(known.hash)
        try:
            return await self._sent(known)
        except StaleError as error:
            if first is not None and await asyncio.shield(first):  # who goes away ends it for none
                raise
            command_id = b32(command_from_signed(known).command_id)
            raise problem_of(forgotten(command_id), {"command_id": command_id}) from error

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
