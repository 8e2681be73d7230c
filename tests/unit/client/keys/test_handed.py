"""Keys that a home remembers: those that live have room, whatever has ended."""

import pytest

from meshnode.client.home import Home
from meshnode.client.keys import handed
from meshnode.client.keys.handed import HandedKey, all_handed, note_revoked, remember
from meshnode.core.errors import ConflictError

NOW_S = 1_795_132_800
DAY_S = 86400


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(handed, "KEYS_MAX", 3)
    return Home(tmp_path)


def key(name, expires_s):
    return HandedKey(name, None, NOW_S - 8 * DAY_S, expires_s, ())


def keep(home, *keys, now_s=NOW_S - 8 * DAY_S):
    for one in keys:
        remember(home, one, now_s)


def known(home):
    return {one.key_id for one in all_handed(home)}


def test_keys_that_have_expired_give_way_the_first_to_expire_first(home):
    keep(home, key("late", NOW_S - 10), key("early", NOW_S - 30), key("middle", NOW_S - 20))
    keep(home, key("new", NOW_S + 60), now_s=NOW_S)
    assert known(home) == {"late", "middle", "new"}
    keep(home, key("newer", NOW_S + 60), now_s=NOW_S)
    assert known(home) == {"late", "new", "newer"}


def test_a_key_that_lives_never_gives_way(home):
    keep(home, key("a", NOW_S + 1), key("b", NOW_S + 1), key("c", NOW_S + 1))
    with pytest.raises(ConflictError, match="3 keys of this home are in use"):
        keep(home, key("new", NOW_S + 60), now_s=NOW_S)
    assert known(home) == {"a", "b", "c"}
    keep(home, key("new", NOW_S + 60), now_s=NOW_S + 1)
    assert len(known(home)) == 3


def test_a_key_that_was_revoked_takes_no_place_of_one_that_lives(home):
    revoked = key("a", NOW_S + DAY_S)
    keep(home, revoked, key("b", NOW_S + 1), key("c", NOW_S + 1))
    note_revoked(home, revoked, NOW_S - 1)
    keep(home, key("new", NOW_S + 60), now_s=NOW_S)
    assert known(home) == {"b", "c", "new"}


def test_where_there_is_room_an_expired_key_stays_for_a_week(home):
    keep(home, key("a", NOW_S), key("b", NOW_S + 1))
    keep(home, key("new", NOW_S + 30 * DAY_S), now_s=NOW_S + handed.REMEMBERED_S + 1)
    assert known(home) == {"b", "new"}


def test_what_is_no_key_of_ours_takes_no_place(home):
    keep(home, key("a", NOW_S + 1), key("b", NOW_S + 1))
    (home.handed_keys / "note.txt").write_text("which is which")
    keep(home, key("new", NOW_S + 60), now_s=NOW_S)
    assert known(home) == {"a", "b", "new"}
