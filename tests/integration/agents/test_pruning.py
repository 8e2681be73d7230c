"""What is left of sessions goes once nobody lists them, and never while it may be needed."""

import os

import pytest

from meshnode.agents.pruning import UNLISTED_KEPT, UNLISTED_KEPT_S, prune
from meshnode.core.ids import session_id_of

pytestmark = pytest.mark.integration

NOW_S = 2_000_000_000.0
OLDEST_S = NOW_S - UNLISTED_KEPT_S
OLD_S = OLDEST_S - 1


@pytest.fixture
def sessions(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "sessions").mkdir()
    return tmp_path / "sessions"


def socket_of(sessions):
    return lambda session_id: sessions.parent / "run" / f"{session_id[:13]}.sock"


def leave(sessions, number, touched_s):
    name = session_id_of("node", number)
    (sessions / name).mkdir(mode=0o700)
    for file in ("output.log", "state.json"):
        (sessions / name / file).write_text("{}")
        os.utime(sessions / name / file, (touched_s, touched_s))
    os.utime(sessions / name, (touched_s, touched_s))
    return name


def pruned(sessions, listed=()):
    return prune(sessions, set(listed), socket_of(sessions), OLDEST_S)


def test_the_old_ones_go_with_their_sockets_and_the_listed_stay(sessions):
    old, listed, fresh = (
        leave(sessions, number, at_s) for number, at_s in ((1, OLD_S), (2, OLD_S), (3, NOW_S))
    )
    stale = socket_of(sessions)(old)
    stale.touch()
    assert pruned(sessions, [listed]) == 1
    assert {one.name for one in sessions.iterdir()} == {listed, fresh}
    assert not stale.exists()
    assert pruned(sessions, [listed]) == 0


def test_so_many_stay_and_the_oldest_of_the_rest_go(sessions):
    names = [leave(sessions, number, NOW_S - number) for number in range(UNLISTED_KEPT + 3)]
    assert pruned(sessions) == 3
    assert {one.name for one in sessions.iterdir()} == set(names[:UNLISTED_KEPT])


def test_a_home_without_sessions_has_nothing_to_prune(tmp_path):
    assert prune(tmp_path / "gone", set(), lambda name: tmp_path / name, OLDEST_S) == 0
