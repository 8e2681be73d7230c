"""A watch through restarts of its node, with time that only counts."""

import pytest

from meshnode.client.connection.absence import GIVE_UP_S, NOTICED_S
from meshnode.client.connection.watching import Watch
from meshnode.client.errors import NoNodeError, SilentNodeError
from meshnode.client.home import home_at
from meshnode.client.targets.targets import Wanted
from meshnode.v1 import event_service_pb2 as pb


class Channel:
    """A connection to a node that tells so much and ends."""

    def __init__(self, *ops: str) -> None:
        events = [pb.Event(kind="watch", op=op, position=op) for op in ops]
        self.answers = [pb.WatchResponse(event=event) for event in events]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def unary_stream(self, *_, **__):
        return lambda _: iter(self.answers)


@pytest.fixture
def ops_of(tmp_path):
    """Watch a node whose connections go as listed, the last one for ever."""

    def ops_of(*connections: Channel | Exception, absent=lambda _: None):
        left, paused_s = list(connections), []

        def connect():
            one = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(one, Exception):
                raise one
            return one

        watch = Watch(
            connect, home_at(str(tmp_path)), Wanted(), lambda: 0.0, paused_s.append, absent
        )
        for event in watch.events(""):
            yield event["op"], sum(paused_s)

    return ops_of


@pytest.mark.parametrize("away", [NoNodeError(), SilentNodeError("7")], ids=["absent", "silent"])
def test_a_watch_waits_for_a_node_that_is_away_and_gives_up_in_the_end(ops_of, away):
    told = ops_of(Channel("complete"), away, Channel("resumed", "lagged"), away)
    assert [next(told)[0], next(told)[0]] == ["complete", "lagged"]
    with pytest.raises(type(away)):
        next(told)


@pytest.mark.parametrize("away", [NoNodeError(), SilentNodeError("7")], ids=["absent", "silent"])
def test_a_node_that_was_never_heard_is_an_error_at_once(ops_of, away):
    with pytest.raises(type(away)):
        next(ops_of(away, Channel("complete")))


def test_a_node_that_comes_back_late_is_still_heard(ops_of):
    said: list[bool] = []
    away = [NoNodeError()] * 10 + [SilentNodeError("7")] * 10
    told = ops_of(Channel("complete"), *away, Channel("lagged"), absent=said.append)
    assert next(told) == ("complete", 0)
    op, waited_s = next(told)
    assert (op, said) == ("lagged", [True, False])
    assert NOTICED_S < waited_s <= GIVE_UP_S


def test_a_short_break_is_not_worth_a_word(ops_of):
    said: list[bool] = []
    told = ops_of(Channel("complete"), NoNodeError(), Channel("lagged"), absent=said.append)
    assert [next(told)[0], next(told)[0], said] == ["complete", "lagged", []]
