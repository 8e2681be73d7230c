"""What became of standing kills, on a real disk."""

import pytest

from meshnode.core.errors import RefusedError
from meshnode.store import standing
from meshnode.store.database import Database

NOW_S = 1_790_000_000
KEY, OTHER = (bytes(16), "s" * 26), (bytes(16), "t" * 26)


def begin(database, key=KEY, expires_s=NOW_S + 60, now_s=NOW_S, issuer=bytes(32)):
    return database.run_now(standing.begin, key, issuer, expires_s, now_s)


def test_an_order_meets_a_session_once(database):
    assert begin(database) is True
    database.run_now(standing.finish, KEY, "applied")
    assert begin(database) is False
    assert begin(database, OTHER) is True
    assert database.run_now(standing.done) == {KEY}


def test_what_was_begun_and_not_finished_is_begun_again(tmp_path):
    for _ in range(3):
        database = Database(tmp_path / "state.db")
        assert database.run_now(standing.done) == set()
        assert begin(database) is True
        database.close()


def test_what_has_expired_is_kept_a_day_longer(database):
    begin(database, expires_s=NOW_S)
    database.run_now(standing.finish, KEY, "applied")
    assert begin(database, OTHER, now_s=NOW_S + standing.KEPT_S) is True
    assert database.run_now(standing.done) == {KEY}
    begin(database, (bytes(16), "u" * 26), now_s=NOW_S + standing.KEPT_S + 1)
    assert database.run_now(standing.done) == set()


def test_more_than_there_may_be_are_refused_and_what_is_there_stays(database, monkeypatch):
    monkeypatch.setattr(standing, "MET_MAX", 1)
    begin(database)
    with pytest.raises(RefusedError, match="were met here"):
        begin(database, OTHER)
    assert begin(database) is True, "it was begun before"


def test_one_issuer_leaves_room_to_the_others(database, monkeypatch):
    monkeypatch.setattr(standing, "OF_ISSUER_MAX", 1)
    begin(database)
    with pytest.raises(RefusedError, match="of this issuer"):
        begin(database, OTHER)
    assert begin(database, OTHER, issuer=b"another") is True
