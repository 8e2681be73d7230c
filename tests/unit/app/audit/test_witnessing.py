"""A few heads of each log are kept, and nobody is accused without a contradiction."""

from msgspec.structs import replace
from unit.core.commands.test_audit import NODE, NODE_ID, WHOLE, head_of

from meshnode.app.audit.witnessing import KEPT_EVERY_S, Seen, Witness
from meshnode.core.commands.audit import sign_head
from meshnode.core.feeds.heads import Head


def seen(place: int, seq: int, at_s: float, **changes) -> Seen:
    head = head_of(WHOLE[seq - 1], **changes)
    return Seen(head, sign_head(NODE, head), at_s, Head(1, place))


def witness(newest=None):
    accused = []
    return Witness(newest or {}, lambda node, wrong: accused.append((node, wrong.seq))), accused


def test_the_first_head_is_kept_and_then_one_a_minute_and_the_last_at_the_end():
    watching, accused = witness()
    for number in range(7):
        watching.see(seen(number, number + 1, number * KEPT_EVERY_S / 4))
    assert [one.head.seq for one in watching.take()] == [1, 5]
    assert watching.take() == []
    assert [one.head.seq for one in watching.take(last=True)] == [7]
    assert watching.take(last=True) == []
    assert accused == []


def test_a_clock_that_was_ahead_for_a_moment_keeps_no_head_from_being_kept_later():
    watching, accused = witness()
    for seq, at_s in ((1, 100.0), (2, 7_300.0), (3, 105.0), (4, 110.0)):
        watching.see(seen(seq, seq, at_s))
    assert [one.head.seq for one in watching.take()] == [1, 2, 3]
    watching.see(seen(5, 5, 100.0))
    assert [one.head.seq for one in watching.take(last=True)] == [5]
    assert accused == []


def test_the_same_head_again_and_older_news_accuse_nobody():
    watching, accused = witness({NODE_ID: seen(5, 5, 1.0)})
    for place, seq in ((5, 5), (6, 5), (3, 3), (7, 6)):
        watching.see(seen(place, seq, 2.0))
    assert accused == []


def test_two_hashes_accuse_whichever_is_heard_first():
    other = seen(3, 5, 2.0, hash=bytes(32))
    for first, second in ((seen(5, 5, 1.0), other), (other, seen(5, 5, 1.0))):
        watching, accused = witness()
        watching.see(first)
        watching.see(second)
        assert accused == [(NODE_ID, 5)]
        proofs = [one for one in watching.take() if one.trouble]
        assert {one.head for one in proofs} == {first.head, second.head}
        assert len({one.trouble for one in proofs}) == 1


def test_another_log_and_a_log_that_goes_back_accuse():
    watching, accused = witness()
    watching.see(seen(1, 6, 1.0))
    watching.see(seen(2, 3, 1.0))
    watching.see(seen(3, 4, 1.0, log=8))
    assert accused == [(NODE_ID, 4), (NODE_ID, 1)]


def test_nodes_are_told_apart():
    watching, accused = witness()
    watching.see(seen(1, 6, 1.0))
    other = replace(seen(1, 3, 1.0), head=head_of(WHOLE[2], node="o" * 52))
    watching.see(other)
    assert accused == []
    assert len(watching.take()) == 2
