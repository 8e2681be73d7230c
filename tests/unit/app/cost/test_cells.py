"""When roll-ups are built anew, and when not: what they add up to is in tests/property."""

from random import Random

import pytest

from meshnode.app.cost import cells as cells_module
from meshnode.app.cost.cells import Cells
from meshnode.core.effects import Announce
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key
from meshnode.core.ledger.ledger import LEDGER, Buckets, Slot, SlotKey
from meshnode.core.ledger.ledger_rows import key_to_row, value_to_row
from meshnode.core.membership.genesis import Limits

MOST = 8


class Owner:
    """One node's ledger, and the roll-ups that follow it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cells_module, "KINDS_MAX", MOST)
        key = Key.new(Random(1).randbytes)
        self.origin = node_id_of(key.public)
        self.feed = OwnFeed(key, bytes(32), Limits(), 1)
        self.cells = Cells({self.origin: self.feed})
        self.cells.begin()
        self.build()

    def build(self) -> None:
        for _ in self.cells.build():
            pass

    def say(self, model: str, tokens: int | None) -> None:
        value = None if tokens is None else value_to_row(Slot(1, Buckets(tokens)))
        self.feed.write(LEDGER, key_to_row(SlotKey("s", model, "standard", 996_000)), value)
        change = self.feed.flush(0.0)
        assert change is not None
        self.cells.take(Announce(self.origin, change.rows, written=change.written))


def test_a_member_with_very_many_models_does_not_have_all_built_anew_at_each_row(
    monkeypatch: pytest.MonkeyPatch,
):
    owner = Owner(monkeypatch)
    for number in range(5 * MOST):
        owner.say(f"m{number}", 1)
    drops = owner.cells.drops
    for tokens in range(2, 50):
        owner.say("m0", tokens)
        owner.build()
    assert (owner.cells.drops, owner.cells.waiting) == (drops, False)


def test_models_that_nobody_uses_any_more_are_let_go(monkeypatch: pytest.MonkeyPatch):
    owner = Owner(monkeypatch)
    for number in range(5 * MOST):
        owner.say(f"m{number}", 1)
        owner.say(f"m{number}", None)
        owner.build()
    assert owner.cells.drops > 0
