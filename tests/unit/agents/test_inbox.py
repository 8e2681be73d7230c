"""A supervisor's inbox: read on behind a position, never beyond its bounds, nothing lost unsaid."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshnode.agents import inbox
from meshnode.agents.clients import OUTBOX_BYTES_MAX, RequestError
from meshnode.agents.inbox import BYTES_MAX, STEERS_MAX, Inbox


class Reader:
    """A connection to a supervisor; notes what it is sent."""

    def __init__(self) -> None:
        self.gone = False
        self.sent = []

    def send(self, message) -> None:
        self.sent.append(message)

    def read(self, box: Inbox, **request) -> dict | None:
        """Ask; returns the answer, None while it waits."""
        before = len(self.sent)
        box.read(self, {"id": 1}, request)
        return self.sent[-1] if len(self.sent) > before else None


def box(*, lone: bool = False) -> Inbox:
    return Inbox(lambda: 5.0, lone=lone)


def steer(text: str) -> dict:
    return {"command_id": f"c-{text}", "direction": None, "message": text}


def said(answer: dict) -> list[str]:
    return [one["message"] for one in answer["steers"]]


def test_a_steer_is_kept_with_its_command_and_when_it_came():
    filled = box()
    filled.add({"command_id": "c1", "direction": "north", "message": None, "secret": "x"})
    assert Reader().read(filled)["steers"] == [
        {
            "position": 1,
            "command_id": "c1",
            "direction": "north",
            "message": None,
            "mode": "soft",
            "at_s": 5.0,
        }
    ]


def test_reading_goes_on_behind_a_position_or_behind_what_was_taken():
    filled, reader = box(), Reader()
    for text in "abc":
        filled.add(steer(text))
    assert said(reader.read(filled, after=1)) == ["b", "c"]
    assert said(reader.read(filled)) == ["a", "b", "c"], "reading alone takes nothing"
    filled.take(reader, {}, {"position": 2})
    filled.take(reader, {}, {"position": 1})
    assert said(reader.read(filled)) == ["c"], "what was taken stays taken"
    assert said(reader.read(filled, after=0)) == ["a", "b", "c"]


def test_a_follower_waits_and_hears_of_each_steer_once():
    filled, reader = box(), Reader()
    assert not filled.is_followed
    assert reader.read(filled, follow=True) is None
    assert filled.is_followed
    filled.add(steer("a"))
    assert said(reader.sent[-1]) == ["a"]
    assert reader.read(filled, follow=True, after=reader.sent[-1]["next"]) is None
    filled.add(steer("b"))
    assert said(reader.sent[-1]) == ["b"]


def test_who_has_gone_follows_no_more_and_is_not_kept():
    filled = box()
    for _ in range(100):
        reader = Reader()
        reader.read(filled, follow=True)
        reader.gone = True
    assert not filled.is_followed
    assert not filled._waiting


def test_the_oldest_goes_at_the_bound_and_the_step_in_positions_shows_it():
    filled = box()
    for number in range(STEERS_MAX + 5):
        filled.add(steer(str(number)))
    answer = Reader().read(filled, after=2)
    assert len(answer["steers"]) == STEERS_MAX
    assert answer["steers"][0]["position"] == 6


def test_an_inbox_that_is_all_an_agent_has_refuses_rather_than_lose():
    filled, reader = box(lone=True), Reader()
    for number in range(STEERS_MAX):
        filled.add(steer(str(number)))
    with pytest.raises(RequestError, match="is full"):
        filled.add(steer("one too many"))
    assert len(reader.read(filled)["steers"]) == STEERS_MAX
    filled.take(reader, {}, {"position": 1})
    filled.add(steer("again"))
    assert reader.read(filled, after=255)["next"] == STEERS_MAX + 1


def test_large_steers_are_bounded_together_and_come_in_pages():
    filled, reader = box(), Reader()
    for number in range(100):
        filled.add(steer(f"{number}:" + "x" * 30_000))
    assert sum(filled._sizes) <= BYTES_MAX
    answer, pages, seen = reader.read(filled, after=0), 0, []
    while answer["steers"]:
        assert sum(len(text) for text in said(answer)) < 2 * inbox.PAGE_BYTES_MAX
        seen += [one["position"] for one in answer["steers"]]
        answer, pages = reader.read(filled, after=answer["next"]), pages + 1
    assert pages > 3
    assert seen == list(range(seen[0], 101))


def test_a_steer_that_json_makes_six_times_as_long_goes_out_in_an_answer_of_its_own():
    filled = box()
    for text in ("a" * 120_000, "\x01" * 32_000, "b"):
        filled.add(steer("") | {"message": text})
    reader, after, seen = Reader(), 0, []
    while (answer := reader.read(filled, after=after))["steers"]:
        assert len(json.dumps(answer)) < OUTBOX_BYTES_MAX
        seen += [one["position"] for one in answer["steers"]]
        after = answer["next"]
    assert seen == [1, 2, 3]


def test_a_steer_that_was_refused_otherwise_is_not_read():
    filled, reader = box(), Reader()
    kept, refused = filled.add(steer("a")), filled.add(steer("b"))
    filled.withdraw(refused)
    filled.withdraw(refused)
    assert said(reader.read(filled)) == ["a"]
    assert filled.add(steer("c")) == kept + 2, "its position is not given again"


@pytest.mark.parametrize(
    "request_", [{"after": -1}, {"after": "1"}, {"after": True}, {"after": 1 << 63}, {"follow": 1}]
)
def test_a_question_that_is_none_is_refused(request_):
    with pytest.raises(RequestError):
        Reader().read(box(), **request_)


@pytest.mark.parametrize("position", [None, 1, -1, "0"])
def test_what_never_came_cannot_be_taken(position):
    with pytest.raises(RequestError):
        box().take(Reader(), {}, {"position": position})


@given(st.lists(st.sampled_from(["add", "read", "take", "withdraw"]), max_size=60))
def test_a_follower_sees_every_steer_that_stays_once_and_in_order(steps):
    filled, reader, after, seen, added, withdrawn = box(), Reader(), 0, [], 0, set()

    def heard() -> None:
        nonlocal after
        for answer in reader.sent:
            seen.extend(one["position"] for one in answer.get("steers", ()))
            after = answer.get("next", after)
        reader.sent.clear()

    for step in [*steps, "read"]:
        match step:
            case "add":
                added = filled.add(steer(str(added)))
            case "withdraw" if added and added not in seen:
                filled.withdraw(added)
                withdrawn.add(added)
            case "take" if seen:
                filled.take(Reader(), {}, {"position": seen[-1]})
            case "read" if reader not in filled._waiting:
                filled.read(reader, {}, {"after": after, "follow": True})
        heard()
    assert seen == [number for number in range(1, added + 1) if number not in withdrawn]
