"""Keys that are made, remembered without their secret, and narrowed offline."""

import json
import stat
from pathlib import Path
from random import Random

import pytest

from meshnode.client.home import Home, make_private
from meshnode.client.keys import keyring
from meshnode.client.keys.authority import Scope
from meshnode.client.keys.blaming import KEY_VARIABLE
from meshnode.client.keys.handed import all_handed, find_handed, note_revoked
from meshnode.client.keys.keyfiles import write_secret
from meshnode.core.control.grants import (
    Request,
    check_permission,
    session_key_from_text,
    verify_chain,
)
from meshnode.core.errors import (
    DamagedError,
    MeshError,
    NotAuthenticatedError,
    NotFoundError,
    NotPermittedError,
    UsageError,
)
from meshnode.core.keys import Key
from meshnode.core.membership.genesis import Genesis

NOW_S = 1_795_132_800.7
HOUR_S, DAY_S = 3600, 86400
chance = Random(3).randbytes
GENESIS = Genesis((Key.new(chance).public,), 1, "test", chance(16))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    make_private(home.path)
    home.genesis.write_bytes(GENESIS.to_bytes())
    write_secret(home.operator_key, chance(32))
    write_secret(home.session_root, chance(32))
    return home


def make(
    home: Home,
    *actions: str,
    parent: str = "",
    ttl_s: int = HOUR_S,
    label: str = "",
    renewable: bool = False,
    now_s: float = NOW_S,
    **scope: object,
) -> dict:
    maker = keyring.Maker(home, {KEY_VARIABLE: parent}, now_s, chance)
    wanted = Scope(actions=actions, **scope)  # type: ignore[arg-type] # the scope's own
    return maker.make(keyring.Wish(wanted, ttl_s, label, renewable))


def may(made: dict, action: str) -> bool:
    grants = verify_chain(session_key_from_text(made["key"]).chain, GENESIS.mesh_id)
    try:
        check_permission(grants, Request(action, "n", "s", "a", ("x",)))
    except NotPermittedError:
        return False
    return True


def test_what_is_made_is_remembered_for_the_user_alone_and_without_its_secret(home):
    made = make(home, "steer", label="ci", nodes=("n",), via="g")
    (file,) = home.handed_keys.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.handed_keys.stat().st_mode) == 0o700
    seed = session_key_from_text(made["key"]).key.seed
    assert made["key"] not in file.read_text()
    assert all(text not in file.read_text() for text in (seed.hex(), made["key"][5:60]))
    (listed,) = keyring.listed(home, NOW_S)
    assert listed["key_id"] == made["key_id"]
    assert (listed["label"], listed["actions"], listed["nodes"], listed["via"]) == (
        "ci",
        ["steer"],
        ["n"],
        "g",
    )
    assert (listed["state"], listed["revoked"], listed["renewable"]) == ("valid", False, False)
    assert keyring.listed(home, NOW_S + HOUR_S)[0]["state"] == "expired"


def test_a_renewal_key_makes_narrower_keys_without_home_or_node_and_does_nothing_else(
    home, tmp_path
):
    renewal = make(home, "steer", "read", renewable=True, ttl_s=30 * DAY_S)
    assert renewal["actions"] == ["keys", "read", "steer"]
    assert not may(renewal, "steer")
    elsewhere = Home(tmp_path / "elsewhere")
    child = make(elsewhere, parent=renewal["key"], ttl_s=60)
    assert not elsewhere.path.exists()
    assert (child["actions"], child["ttl"]) == (["read", "steer"], 60)
    assert may(child, "steer")
    assert not may(child, "kill")


def test_a_child_never_outlives_its_parent_nor_gets_what_that_has_not(home):
    renewal = make(home, "steer", renewable=True)
    later = NOW_S + HOUR_S - 60
    child = make(home, parent=renewal["key"], ttl_s=DAY_S, now_s=later)
    assert (child["ttl"], child["expires_at"]) == (60, renewal["expires_at"])
    with pytest.raises(NotPermittedError, match="cannot give: kill"):
        make(home, "steer", "kill", parent=renewal["key"])
    with pytest.raises(NotAuthenticatedError, match="expired") as refused:
        make(home, parent=renewal["key"], now_s=NOW_S + HOUR_S + 1)
    assert "env -u SESSION_API_KEY session-mesh keys new" in refused.value.hint
    with pytest.raises(UsageError):
        make(home, parent=renewal["key"], ttl_s=0)
    nothing = make(home, "metrics")
    with pytest.raises(NotPermittedError, match="cannot give: anything"):
        make(home, parent=nothing["key"])


def test_a_key_of_a_narrow_key_is_shown_as_narrow_as_it_is(home):
    parent = make(home, "steer", "kill", nodes=("n",), agents=("a", "b"), via="g")
    child = make(home, "steer", parent=parent["key"], agents=("b", "c"))
    make(home, "steer", parent=child["key"])
    shown = [keyring.inspect(child["key"]), *keyring.listed(home, NOW_S)[:2]]
    wanted = (["steer"], ["n"], ["b"], None, "g")
    for one in shown:
        limits = (one["actions"], one["nodes"], one["agents"], one["sessions"], one["via"])
        assert limits == wanted, one["key_id"]


@pytest.mark.parametrize(
    ("of_parent", "of_child", "shown"),
    [
        (("x", "y"), ("y", "z"), ["y"]),
        (("x",), ("y",), ["y"]),  # a session may have both
        (("x",), None, ["x"]),
        (None, ("x",), ["x"]),
        (None, None, None),
    ],
)
def test_specializations_of_several_links_are_shown(home, of_parent, of_child, shown):
    parent = make(home, "steer", specializations=of_parent)
    child = make(home, "steer", parent=parent["key"], specializations=of_child)
    assert keyring.inspect(child["key"])["specializations"] == shown
    grandchild = make(home, "steer", parent=child["key"])
    assert keyring.inspect(grandchild["key"])["specializations"] == shown


@pytest.mark.parametrize(
    ("of_parent", "of_child", "said"),
    [
        ({"agents": ("a",)}, {"agents": ("b",)}, "agents b"),
        ({"nodes": ("n",)}, {"nodes": ("o", "p")}, "nodes o, p"),
        ({"via": "g"}, {"via": "h"}, "via h"),
    ],
)
def test_a_key_that_nothing_would_obey_is_not_made(home, of_parent, of_child, said):
    parent = make(home, "steer", **of_parent)
    with pytest.raises(NotPermittedError, match=f"cannot give: {said}$"):
        make(home, "steer", parent=parent["key"], **of_child)
    assert len(all_handed(home)) == 1


@pytest.mark.parametrize("limit", [{"agents": ("",)}, {"specializations": ("docs", "")}])
def test_a_limit_without_a_name_is_refused_and_nothing_is_remembered(home, limit):
    with pytest.raises(UsageError, match="without a name"):
        make(home, "steer", **limit)
    assert all_handed(home) == []


def test_how_long_a_key_may_live_is_told_as_people_write_it(home):
    with pytest.raises(UsageError, match="1 s to 30 days, not 400d"):
        make(home, "steer", ttl_s=400 * DAY_S)


def test_keys_of_keys_end_at_four_links(home):
    made = make(home, "steer", renewable=True)
    for _ in range(3):
        made = make(home, "steer", parent=made["key"], renewable=True)
    with pytest.raises(NotPermittedError, match="last of 4"):
        make(home, parent=made["key"])


def test_looking_into_a_key_shows_all_but_the_key(home):
    renewal = make(home, "steer", "kill", renewable=True)
    child = make(home, "steer", parent=renewal["key"], agents=("a",))
    seen = keyring.inspect(child["key"])
    assert (seen["actions"], seen["mesh_id"], seen["verdict"]) == (
        ["steer"],
        GENESIS.mesh_id,
        None,
    )
    first, last = seen["links"]
    assert (first["subject"], last["subject"]) == (renewal["key_id"], child["key_id"])
    assert (first["renewable"], last["renewable"]) == (True, False)
    assert last["agents"] == ["a"]
    text = json.dumps(seen)
    assert session_key_from_text(child["key"]).key.seed.hex() not in text
    assert child["key"][5:60] not in text
    with pytest.raises(NotAuthenticatedError):
        keyring.inspect(child["key"][:-1])


def test_a_key_is_found_by_its_id_or_the_start_of_it(home):
    made = make(home)
    assert find_handed(home, made["key_id"]) == find_handed(home, made["key_id"][:8])
    for word in (made["key_id"][:7], "0" * 16, ""):
        with pytest.raises(NotFoundError):
            find_handed(home, word)


def test_a_revocation_is_remembered(home):
    made = make(home)
    note_revoked(home, find_handed(home, made["key_id"]), NOW_S + 5)
    (listed,) = keyring.listed(home, NOW_S + 9)
    assert (listed["state"], listed["revoked"]) == ("revoked", True)


def test_the_book_forgets_what_has_long_expired(home):
    old = make(home, ttl_s=1)
    make(home)
    new = make(home, now_s=NOW_S + 8 * DAY_S, ttl_s=60)
    ids = [key.key_id for key in all_handed(home)]
    assert new["key_id"] in ids
    assert old["key_id"] not in ids


@pytest.mark.parametrize("text", ["", "{", "[]", '{"chain": 5}', "\xff"])
def test_a_damaged_record_says_which_file_it_is(home, text):
    make(home)
    (file,) = home.handed_keys.iterdir()
    file.write_text(text)
    with pytest.raises(DamagedError, match=file.name):
        all_handed(home)


def test_a_record_that_is_a_link_is_not_followed(home, tmp_path):
    make(home)
    (file,) = home.handed_keys.iterdir()
    moved = file.rename(tmp_path / "moved")
    file.symlink_to(moved)
    with pytest.raises(MeshError, match=file.name):
        all_handed(home)


@pytest.mark.parametrize("label", ["x" * 129, "a\nb", "\x1b[31m"])
def test_an_odd_label_is_refused(home, label):
    with pytest.raises(UsageError, match="label"):
        make(home, label=label)
    assert not home.handed_keys.exists()


@pytest.mark.parametrize("parent", [False, True])
def test_a_key_that_is_limited_to_more_than_it_has_room_for_is_a_usage_error(home, parent):
    agents = tuple(f"agent-{number}" for number in range(400))
    key = make(home, renewable=True)["key"] if parent else ""
    before = all_handed(home)
    with pytest.raises(UsageError, match="4,096") as refused:
        make(home, parent=key, agents=agents)
    assert "fewer agents" in refused.value.hint
    assert all_handed(home) == before
    assert make(home, parent=key, agents=agents[:99])["key"]
