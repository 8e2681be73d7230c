"""A session's inbox inside its supervisor: the steers that an agent can ask for.

Invariants: a steer has one position, and positions grow by one, so whoever reads on behind a
position sees each steer once and notices what is gone; at most STEERS_MAX steers of BYTES_MAX
together are kept. It lives as long as the agent, and so outlives every restart of the node.
"""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING

from meshnode.agents.clients import RequestError, text_of
from meshnode.core.commands.steers import SOFT

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.agents.clients import Client, Reply

STEERS_MAX = 256  # beyond, the oldest goes; of an agent that has only its inbox, a steer is refused
BYTES_MAX = 1 << 20  # the same, of all steers together
PAGE_BYTES_MAX = 128 << 10  # of one answer, or one steer; a reader asks for more behind it
POSITION_MAX = (1 << 63) - 1


class Inbox:
    """Steers in order of arrival; `clock` returns seconds since 1970.

    A `lone` inbox is the agent's only way to hear of a steer: nothing that it has not taken goes.
    """

    def __init__(self, clock: Callable[[], float], *, lone: bool) -> None:
        self._clock = clock
        self._lone = lone
        self._steers: deque[Reply] = deque()
        self._sizes: deque[int] = deque()
        self._newest = 0
        self._taken = 0
        self._waiting: dict[Client, tuple[Reply, int]] = {}
        self._followers: list[Client] = []
        self.was_read = False

    @property
    def is_followed(self) -> bool:
        """Whether somebody waits for what comes next."""
        self._forget_gone()
        return bool(self._followers)

    @property
    def untaken(self) -> int:
        """How many steers are in it that the agent has not dealt with."""
        return sum(_place(steer) > self._taken for steer in self._steers)

    def add(self, request: Reply) -> int:
        """Keep a steer and tell those who wait; returns its position, raises RequestError."""
        steer: Reply = {
            "command_id": text_of(request, "command_id"),
            "direction": text_of(request, "direction"),
            "message": text_of(request, "message"),
            "mode": text_of(request, "mode") or SOFT,
            "at_s": self._clock(),
        }
        size = len(json.dumps(steer))
        self._make_room(size)
        self._newest += 1
        self._steers.append({"position": self._newest, **steer})
        self._sizes.append(size)
        for client, (head, after) in list(self._waiting.items()):
            del self._waiting[client]
            self._answer(client, head, after)
        return self._newest

    def withdraw(self, position: int) -> None:
        """Take a steer out again that was refused otherwise; others keep their positions."""
        for place, steer in enumerate(self._steers):
            if steer["position"] == position:
                del self._steers[place]
                del self._sizes[place]
                return

    def read(self, client: Client, head: Reply, request: Reply) -> None:
        """Answer with what is behind a position; without one, behind what was taken.

        With `follow` an answer waits until there is something. Raises RequestError.
        """
        after, follow = _position(request, "after"), request.get("follow", False)
        if not isinstance(follow, bool):
            raise RequestError("follow is true or false")
        self._forget_gone()
        self.was_read = True
        after = self._taken if after is None else after
        if follow and client not in self._followers:
            self._followers.append(client)
        if follow and self._newest <= after:
            self._waiting[client] = (head, after)
        else:
            self._answer(client, head, after)

    def take(self, client: Client, head: Reply, request: Reply) -> None:
        """Note up to where an agent has dealt with its steers; raises RequestError."""
        position = _position(request, "position")
        if position is None or position > self._newest:
            raise RequestError("position is that of a steer")
        self._taken = max(self._taken, position)
        client.send({**head, "ok": True})

    def _answer(self, client: Client, head: Reply, after: int) -> None:
        page: list[Reply] = []
        room = PAGE_BYTES_MAX
        for steer, size in zip(self._steers, self._sizes, strict=True):
            if _place(steer) > after:
                room -= size
                if page and room < 0:
                    break
                page.append(steer)
        # `next` is behind the page even if nothing in it is left: what is gone is not waited for.
        following = _place(page[-1]) if room < 0 else max(self._newest, after)
        client.send({**head, "ok": True, "steers": page, "next": following})

    def _forget_gone(self) -> None:
        self._followers = [one for one in self._followers if not one.gone]
        self._waiting = {one: asked for one, asked in self._waiting.items() if not one.gone}

    def _make_room(self, size: int) -> None:
        while self._steers and (
            len(self._steers) >= STEERS_MAX or sum(self._sizes) + size > BYTES_MAX
        ):
            if self._lone and _place(self._steers[0]) > self._taken:
                raise RequestError(
                    f"the agent's inbox is full: {len(self._steers)} steers wait in it"
                )
            self._steers.popleft()
            self._sizes.popleft()


def _position(request: Reply, name: str) -> int | None:
    value = request.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= POSITION_MAX:
        raise RequestError(f"{name} is a position in the inbox")
    return value


def _place(steer: Reply) -> int:
    place = steer["position"]
    return place if isinstance(place, int) else 0
