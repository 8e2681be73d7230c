"""Of whoever has very much, a piece is looked at in turn, however often it is entered."""

from collections import Counter

from meshnode.app.queries.sweeps import PIECE, Sweeps
from meshnode.core.ids import NodeId

MANY, FEW = NodeId("many"), NodeId("few")
THINGS = {MANY: list(range(3 * PIECE)), FEW: [0]}


def test_members_are_swept_in_turn_a_piece_at_a_time():
    sweeps = Sweeps(lambda owner: list(THINGS[owner]))
    sweeps.enter(MANY)
    sweeps.enter(FEW)
    taken = []
    while sweeps:
        owner, some = sweeps.take()
        taken.append((owner, len(some)))
    assert taken == [(MANY, PIECE), (FEW, 1), (MANY, PIECE), (MANY, PIECE)]


def test_each_thing_is_looked_at_after_its_member_was_last_entered():
    asked = []
    sweeps = Sweeps(lambda owner: asked.append(owner) or list(THINGS[owner]))
    sweeps.enter(MANY)
    sweeps.take()
    for _ in range(1000):
        sweeps.enter(MANY)
    seen: Counter[int] = Counter()
    while sweeps:
        seen.update(sweeps.take()[1])
    assert len(asked) == 2, "what there is, is asked once a sweep"
    assert all(seen[one] >= 1 for one in THINGS[MANY])
    assert all(seen[one] == 2 for one in THINGS[MANY][PIECE:])


def test_whoever_has_nothing_left_is_done():
    sweeps: Sweeps[int] = Sweeps(lambda _: [])
    sweeps.enter(MANY)
    assert sweeps.take() == (MANY, [])
    assert not sweeps
