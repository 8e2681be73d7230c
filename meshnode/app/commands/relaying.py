"""Commands that travel over links, sealed: to a neighbour at once, to others along a route.

Invariant: every request sent is answered, by its owner, by a node on the way, or by the deadline;
at most ORDERS_MAX wait at a time, and as many from others are judged at a time. A node on the way
can only drop or delay: what it says itself is never taken for the owner's word, not even that the
order did not get there. A command id is executed at most once whatever way it came
(app/commands/commands.py), so sending it again is safe.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from meshnode.core.commands.envelopes import RENEWAL, Answer, Request
from meshnode.core.errors import (
    ExhaustedError,
    MeshError,
    NoAnswerError,
    PeerError,
    RefusedError,
    UnreachableError,
    error_of,
)
from meshnode.core.feeds.messages import Order, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable

    from meshnode.app.mesh.mesh import Mesh
    from meshnode.core.commands.envelopes import Asked, Awaited, Correspondence
    from meshnode.core.effects import Effect
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Signed

ORDERS_MAX = 256  # more: ExhaustedError to whoever sends one
PIECE_S = 10.0  # for one piece of output to come
PIECE_TRIES = 3  # of one piece of output, when a node on the way fails: the path may be another now
TRIES, AGAIN_S = 8, 0.25  # when a node on the way turns an order back: our share may be used up
AGAIN = "the same --command-id may be sent again safely"


class TurnedBackError(NoAnswerError):
    """What came back is not the owner's word. The order may have got there all the same."""


class Judge(Protocol):
    """Where a command that came over links is judged and executed."""

    async def __call__(self, signed: Signed, via: str, *, until_accepted: bool = False) -> Signed:
        """Return a receipt; raises a MeshError."""


def _nobody(_member: NodeId) -> bytes:
    raise RefusedError("this node admits nobody", "ask a node that does")


class Desk(msgspec.Struct, frozen=True):
    """Who answers here for what is owned here, given a command and the member that delivers it.

    `submit` executes it at most once; `read_piece` returns the piece of this number of a session's
    output, and whether it is the last. Both raise a MeshError if they refuse.
    """

    submit: Judge
    read_piece: Callable[[Signed, str, int], Awaitable[tuple[bytes, bool]]]


class _Letter(msgspec.Struct, frozen=True):
    """A request that is sealed and may be sent."""

    number: int
    awaited: Awaited
    effects: list[Effect]


class Relaying:
    """Sends commands over links, and answers those that come over them."""

    def __init__(
        self,
        mesh: Mesh,
        correspondence: Correspondence,
        perform: Callable[[Iterable[Effect]], None],
        desk: Desk,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._mesh = mesh
        self._correspondence = correspondence
        self._perform = perform
        self._desk = desk
        self._spawn = spawn
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._judging = 0
        self.issue: Callable[[NodeId], bytes] = _nobody  # a member's certificate, or a MeshError

    def is_linked(self, owner: NodeId) -> bool:
        """Whether there is a link with this node, and a key to seal to."""
        return owner in self._mesh.overlay.links and bool(self._sealing_key_of(owner))

    def has_path(self, owner: NodeId) -> bool:
        """Whether links lead to this node, and there is a key to seal to."""
        return owner in self._mesh.liveness.graph.reached and bool(self._sealing_key_of(owner))

    async def submit(
        self, owner: NodeId, command: Signed, *, until_accepted: bool = False
    ) -> Signed:
        """Deliver a command; returns the receipt, raises what the owner said.

        It waits for as long as the caller does. Raises UnreachableError if it certainly was not
        sent, NoAnswerError if it may have been.
        """
        answer = await self._ask_patiently(owner, Request(command, until_accepted=until_accepted))
        if answer.receipt is None:
            raise PeerError("the owner answered without a receipt", AGAIN)
        return answer.receipt

    async def read(self, owner: NodeId, command: Signed, timeout_s: float) -> AsyncIterator[bytes]:
        """Read a session's output piece by piece; the next is asked for when one was taken.

        Each is waited for `timeout_s` at most; a reader that takes longer between two than the
        owner keeps a reading open (app/sessions/readings.py) is told to begin again: StaleError.
        """
        number = 0
        while True:
            answer = await self._ask_piece(owner, Request(command, number), timeout_s)
            if answer.piece:
                yield answer.piece
            if answer.last:
                return
            number += 1

    async def renew(self, admitter: NodeId) -> bytes:
        """Return a certificate of this node that an admitter has issued, unchecked.

        It waits for as long as the caller does; raises what the admitter said.
        """
        answer = await self._ask_patiently(admitter, RENEWAL)
        return answer.piece or b""

    async def _ask_piece(self, owner: NodeId, request: Request, left_s: float) -> Answer:
        """Ask again, perhaps along another path, when a node on the way fails or says nothing."""
        error = UnreachableError("the output did not come in time", "read it again")
        until_s = asyncio.get_running_loop().time() + left_s
        for _ in range(PIECE_TRIES):
            try:
                async with asyncio.timeout(
                    min(PIECE_S, until_s - asyncio.get_running_loop().time())
                ):
                    return await self._ask_patiently(owner, request)
            except TimeoutError:
                pass
            except UnreachableError as failed:
                error = failed
        raise error

    async def _ask_patiently(self, owner: NodeId, request: Request) -> Answer:
        """Ask again a little later when a node on the way has turned the order back."""
        letter = self._letter(owner, request)
        for _ in range(TRIES - 1):
            try:
                return await self._answer_to(letter)
            except TurnedBackError as turned_back:
                await asyncio.sleep(AGAIN_S)
                try:
                    letter = self._letter(owner, request)
                except MeshError:  # it is not sent again, and has been sent
                    raise turned_back from None
        return await self._answer_to(letter)

    def _letter(self, owner: NodeId, request: Request) -> _Letter:
        """Seal a request; raises a MeshError if it cannot be sent."""
        if len(self._waiting) >= ORDERS_MAX:
            raise ExhaustedError(f"{ORDERS_MAX} commands wait for an answer", "try again")
        number = self._mesh.neighbours.order_number()
        key = self._sealing_key_of(owner)
        if not key:
            raise UnreachableError("its record has no key to seal to: is its version older?")
        sealed, awaited = self._correspondence.ask(owner, key, number, request)
        effects = self._mesh.neighbours.order(owner, Order(number, sealed))
        if not effects:
            raise UnreachableError("no path of links leads there", "session-mesh nodes --links")
        return _Letter(number, awaited, effects)

    async def _answer_to(self, letter: _Letter) -> Answer:
        """Send a request, and wait for what comes back; raises what its owner says."""
        told: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting[letter.number] = told
        try:
            self._perform(letter.effects)
            reply = await told
        finally:
            del self._waiting[letter.number]
        if not reply.sealed:
            said = reply.error[1] or "nothing"
            words = f"its owner did not answer; a node on the way says: {said}"
            raise TurnedBackError(words, AGAIN)
        try:
            answer = letter.awaited.open(reply.sealed)
        except PeerError as error:
            raise TurnedBackError("the answer was changed on its way", AGAIN) from error
        if any(answer.error):
            raise error_of(dict(zip(("code", "message", "hint"), answer.error, strict=True)))
        return answer

    def answered(self, reply: Reply) -> None:
        """Take an answer; one that nobody waits for any more is dropped."""
        told = self._waiting.get(reply.number)
        if told is not None and not told.done():
            told.set_result(reply)

    def obey(self, order: Order, route: tuple[NodeId, ...]) -> None:
        """Judge what came over links in the background, and answer it."""
        try:
            asked = self._correspondence.hear(route[-1], order.number, order.sealed)
        except PeerError as error:  # nobody's key is known to answer to
            self._reply(route, Reply(order.number, error=(error.code, error.message, error.hint)))
            return
        if self._judging >= ORDERS_MAX:
            busy = ExhaustedError(f"{ORDERS_MAX} commands are being judged", "try again")
            self._answer(route, order.number, asked, _refusal(busy))
            return
        self._judging += 1
        self._spawn(self._obey(order.number, asked, route))

    async def _obey(self, number: int, asked: Asked, route: tuple[NodeId, ...]) -> None:
        try:
            answer = await self._judged(asked)
        except MeshError as error:
            answer = _refusal(error)
        finally:
            self._judging -= 1
        self._answer(route, number, asked, answer)

    async def _judged(self, asked: Asked) -> Answer:
        command, piece = asked.request.command, asked.request.piece
        if asked.request.renew:
            return Answer(piece=self.issue(asked.sender), last=True)
        if piece is None:
            until_accepted = asked.request.until_accepted
            return Answer(
                await self._desk.submit(command, asked.sender, until_accepted=until_accepted)
            )
        output, last = await self._desk.read_piece(command, asked.sender, piece)
        return Answer(piece=output, last=last)

    def _answer(self, route: tuple[NodeId, ...], number: int, asked: Asked, answer: Answer) -> None:
        try:
            reply = Reply(number, asked.answer(answer))
        except PeerError as error:
            reply = Reply(number, error=(error.code, error.message, error.hint))
        self._reply(route, reply)

    def _reply(self, route: tuple[NodeId, ...], reply: Reply) -> None:
        self._perform(self._mesh.answer(route, reply))

    def _sealing_key_of(self, owner: NodeId) -> bytes:
        record = self._mesh.tables.node(owner)
        return b"" if record is None else record.sealing_key


def _refusal(error: MeshError) -> Answer:
    return Answer(error=(error.code, error.message, error.hint))
