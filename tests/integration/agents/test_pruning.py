"""What is left of sessions goes once nobody lists them, and never while it may be needed."""

import os

import pytest

from meshnode.agents import pruning
from meshnode.agents.output import is_kept
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


def leave(sessions, number, touched_s, output="{}"):
    name = session_id_of("node", number)
    (sessions / name).mkdir(mode=0o700)
    for file, text in (("output.log", output), ("state.json", "{}")):
        (sessions / name / file).write_text(text)
        os.utime(sessions / name / file, (touched_s, touched_s))
    os.utime(sessions / name, (touched_s, touched_s))
    return name


def pruned(sessions, live=(), ended=()):
    return prune(sessions, set(live), set(ended), socket_of(sessions), OLDEST_S)


def test_the_old_ones_go_with_their_sockets_and_the_listed_stay(sessions):
    old, listed, fresh = (
        leave(sessions, number, at_s) for number, at_s in ((1, OLD_S), (2, OLD_S), (3, NOW_S))
    )
    stale = socket_of(sessions)(old)
    stale.touch()
    assert pruned(sessions, ended=[listed]) == 1
    assert {one.name for one in sessions.iterdir()} == {listed, fresh}
    assert not stale.exists()
    assert pruned(sessions, live=[listed]) == 0


def test_so_many_stay_and_the_oldest_of_the_rest_go(sessions):
    names = [leave(sessions, number, NOW_S - number) for number in range(UNLISTED_KEPT + 3)]
    assert pruned(sessions) == 3
    assert {one.name for one in sessions.iterdir()} == set(names[:UNLISTED_KEPT])


def test_a_home_without_sessions_has_nothing_to_prune(tmp_path):
    assert prune(tmp_path / "gone", (), (), lambda name: tmp_path / name, OLDEST_S) == 0


def test_of_too_much_output_the_oldest_goes_and_of_listed_sessions_nothing_else(
    sessions, monkeypatch
):
    monkeypatch.setattr(pruning, "OUTPUT_BYTES_MAX", 100)
    live, new, ended, _ = (leave(sessions, number, NOW_S - number, "x" * 60) for number in range(4))
    (sessions / ended / "output.log.1").write_text("older")
    assert pruned(sessions, [live], [new, ended]) == 2
    assert {one.name for one in sessions.iterdir()} == {live, new, ended}
    assert [is_kept(sessions / one) for one in (live, new, ended)] == [True, True, False]
    assert [one.name for one in (sessions / ended).iterdir()] == ["state.json"]
    assert pruned(sessions, [live], [new, ended]) == 0


def test_both_logs_of_a_session_count(sessions, monkeypatch):
    monkeypatch.setattr(pruning, "OUTPUT_BYTES_MAX", 100)
    new, old = (leave(sessions, number, NOW_S - number, "x" * 40) for number in range(2))
    assert pruned(sessions, ended=[new, old]) == 0
    (sessions / old / "output.log.1").write_text("x" * 21)
    os.utime(sessions / old / "output.log.1", (NOW_S - 1, NOW_S - 1))
    os.utime(sessions / old, (NOW_S - 1, NOW_S - 1))
    assert pruned(sessions, ended=[new, old]) == 1
    assert not is_kept(sessions / old)


def test_what_one_go_leaves_the_next_ones_remove(sessions, monkeypatch):
    monkeypatch.setattr(pruning, "PRUNED_MAX", 2)
    names = [leave(sessions, number, OLD_S - number) for number in range(5)]
    assert pruned(sessions) == 2
    assert {one.name for one in sessions.iterdir()} == set(names[:3])
    assert [pruned(sessions) for _ in range(3)] == [2, 1, 0]
