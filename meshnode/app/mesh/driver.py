"""Carry out what the cores ask for: the only place where effects become actions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, assert_never

from meshnode.core.effects import (
    Announce,
    Answered,
    Dial,
    DropControl,
    Effect,
    HangUp,
    Obey,
    Persist,
    PersistControl,
    PersistFork,
    Report,
    Send,
    Wake,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meshnode.core.feeds.feed import Change
    from meshnode.core.feeds.forks import Proof
    from meshnode.core.feeds.messages import Message, Order, Reply
    from meshnode.core.ids import NodeId
    from meshnode.core.keys import Signed


class World(Protocol):
    """Everything a node may do to its surroundings. No method waits."""

    def send(self, peer: NodeId, message: Message) -> None:
        """Hand a message to a link; without a link nothing happens."""

    def dial(self, peer: NodeId, addresses: tuple[str, ...]) -> None:
        """Try to open a link."""

    def hang_up(self, peer: NodeId, reason: str, *, parting: bool) -> None:
        """End a link; when parting, write out first what waits for the peer."""

    def wake(self, at_s: float, name: str) -> None:
        """Arrange a callback."""

    def persist(self, change: Change, *, ours: bool) -> None:
        """Write a change of a feed to disk."""

    def persist_control(self, entry: Signed) -> None:
        """Write an entry of the control set to disk."""

    def persist_fork(self, proof: Proof) -> None:
        """Write to disk why an epoch is in quarantine."""

    def drop_control(self, entry_ids: tuple[bytes, ...]) -> None:
        """Delete entries of the control set from disk."""

    def announce(self, news: Announce) -> None:
        """Wake whoever waits for these rows, or for these members."""

    def report(self, event: str, peer: NodeId | None, detail: str) -> None:
        """Log."""

    def obey(self, order: Order, route: tuple[NodeId, ...]) -> None:
        """Judge what came sealed over links, and answer it along this route."""

    def answered(self, reply: Reply) -> None:
        """Hand the answer to whoever sent the command."""


def perform(  # noqa: C901, PLR0912 - one case an effect
    effects: Iterable[Effect], world: World
) -> None:
    """Perform every effect, in order."""
    for effect in effects:
        match effect:
            case Send(peer, message):
                world.send(peer, message)
            case Dial(peer, addresses):
                world.dial(peer, addresses)
            case HangUp(peer, reason, parting):
                world.hang_up(peer, reason, parting=parting)
            case Wake(at_s, name):
                world.wake(at_s, name)
            case Persist(change, ours):
                world.persist(change, ours=ours)
            case PersistControl(entry):
                world.persist_control(entry)
            case PersistFork(proof):
                world.persist_fork(proof)
            case DropControl(entry_ids):
                world.drop_control(entry_ids)
            case Announce() as news:
                world.announce(news)
            case Report(event, peer, detail):
                world.report(event, peer, detail)
            case Obey(order, route):
                world.obey(order, route)
            case Answered(reply):
                world.answered(reply)
            case _:
                assert_never(effect)
