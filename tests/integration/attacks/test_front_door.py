"""Keys at the HTTP front door that want to take it, or what is behind it, away from others."""

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from doubles import ManualClock
from integration.attacks.grantors import (
    GENERATION,
    GENESIS,
    KEYS,
    NODE_ID,
    NOW_S,
    ROLES,
    Chain,
    chance,
    of,
)
from integration.attacks.grantors import Desk as Owner
from starlette.requests import Request

from meshnode.app.commands.bearers import Bearer, Bearers
from meshnode.app.commands.keys import Keys
from meshnode.app.commands.quotas import OF_PEER, OF_SIGNER
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.app.queries.queries import Queries
from meshnode.core.control.grants import SessionKey
from meshnode.core.errors import ExhaustedError, NotAuthenticatedError, NotPermittedError
from meshnode.core.keys import Key
from meshnode.gateway.acting import Actor
from meshnode.gateway.desk import (
    FAILED_BURST,
    FORGED_BURST,
    FORGED_PER_S,
    KEY_BURST,
    Desk,
)
from meshnode.gateway.problems import Problem
from meshnode.ingest.prices import PriceBook
from meshnode.rpc.commands import Bringer

pytestmark = pytest.mark.integration
HERE, ELSEWHERE = "127.0.0.1", "192.0.2.7"


def text_of(chain: Chain) -> str:
    return SessionKey(chain.key, chain.links).to_text()


def asking(token: str, host: str = HERE) -> Request:
    headers = [(b"authorization", b"Bearer " + token.encode())] if token else []
    return Request({"type": "http", "headers": headers, "client": (host, 1), "path": "/"})


NOWHERE: Any = None  # the way to other nodes: nothing is ordered of any here


class Looked(Bearers):
    """Counts how often a key was looked at."""

    looks = 0

    def known(self, text: str, now_s: float):
        self.looks += 1
        return super().known(text, now_s)


class Front:
    """A desk, and who comes to it."""

    def __init__(self) -> None:
        mesh = Mesh(GENESIS, Self(KEYS["node"], 1, Random(1)))
        assert mesh.control.add_all(ROLES, NOW_S) == []
        self.clock = ManualClock()
        self.bearers = Looked(Keys(mesh), NODE_ID)
        self.desk = Desk(self.bearers, self.clock)
        self.owner = Owner()
        self.actor = Actor(
            Queries(mesh, PriceBook(), self.clock),
            Bringer(NODE_ID, self.owner.desk, NOWHERE),
            GENERATION,
            self.clock,
            chance,
        )

    def bearer(self, chain: Chain) -> Bearer:
        return self.desk.bearer(asking(text_of(chain)))

    def status(self, token: str, host: str = HERE) -> int:
        try:
            self.desk.bearer(asking(token, host))
        except NotAuthenticatedError:
            return 401
        except Problem as problem:
            return problem.status
        return 200


@pytest.fixture
def front() -> Front:
    return Front()


def no_key() -> str:
    return ""


def garbage() -> str:
    return f"smk1_{chance(8).hex()}"


def forged() -> str:
    return text_of(Chain(Key.new(chance)).child().child())


def expired() -> str:
    return text_of(of("carl").child(expires_s=NOW_S - 60))


@pytest.mark.parametrize("token", [no_key, garbage, forged, expired])
def test_a_flood_of_what_is_no_key_takes_nothing_from_a_good_one(
    front: Front, token: Callable[[], str]
):
    good = text_of(of("carl").child())
    assert front.status(good) == 200
    answers = [front.status(token()) for _ in range(500)]
    assert answers.count(401) == FAILED_BURST
    assert set(answers) == {401, 429}
    assert [front.status(good) for _ in range(50)] == [200] * 50


def test_a_key_that_is_new_is_let_in_beside_a_flood_without_keys(front: Front):
    for _ in range(500):
        front.status("")
    assert front.status("") == 429
    assert front.status(text_of(of("carl").child())) == 200


def test_forged_keys_are_looked_at_so_many_times_a_second_and_no_more(front: Front):
    known, front.bearers.looks = text_of(of("carl").child()), 0
    for _ in range(1000):
        front.status(forged())
    assert front.bearers.looks == FORGED_BURST
    assert front.status(known) == 429, "nobody knows it here yet"
    assert front.status(known, ELSEWHERE) == 200
    assert front.status(known) == 200
    front.clock.now_s += 1
    front.bearers.looks = 0
    for _ in range(1000):
        front.status(forged())
    assert front.bearers.looks == FORGED_PER_S


def test_a_key_that_was_good_is_verified_each_time(front: Front):
    short = of("carl").child(expires_s=NOW_S + 5)
    assert front.status(text_of(short)) == 200
    front.clock.now_s += 10
    assert front.status(text_of(short)) == 401
    other = dataclasses.replace(short, key=Key.new(chance))
    assert front.status(text_of(other)) == 401


def test_keys_made_of_one_share_its_pace_and_no_other(front: Front):
    first = of("carl").child()
    children = [text_of(first.child()) for _ in range(10)]
    answers = [front.status(children[number % 10]) for number in range(int(KEY_BURST) + 50)]
    assert answers == [200] * int(KEY_BURST) + [429] * 50
    assert front.status(text_of(of("carl").child())) == 200


async def test_orders_of_a_key_without_the_right_never_reach_the_owner(front: Front):
    worthless = front.bearer(of("carl").child(actions=("read", "metrics")))
    for _ in range(OF_PEER.burst + 1):
        with front.owner.unchanged(), pytest.raises(NotPermittedError):
            await front.actor.register(worthless, "a", "docs", {})
    await front.owner.obeys(of("carl").child(), "kill", via=NODE_ID)


async def test_orders_of_all_keys_made_of_one_leave_the_owner_an_ear_for_others(front: Front):
    first = of("carl").child()
    children = [front.bearer(first.child()) for _ in range(10)]
    heard = 0
    for number in range(OF_PEER.burst + 1):
        with suppress(ExhaustedError, Problem):
            await front.actor.register(children[number % 10], "a", "docs", {})
            heard += 1
    assert heard == OF_SIGNER.burst
    await front.owner.obeys(of("carl").child(), "kill", via=NODE_ID)
