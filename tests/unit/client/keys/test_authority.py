"""What a user may command with."""

from pathlib import Path
from random import Random

import pytest

from meshnode.client.home import Home, make_private
from meshnode.client.keys.authority import (
    InviteTerms,
    Scope,
    authorize_invite,
    mesh_id_of,
    new_key,
    session_key,
)
from meshnode.client.keys.keyfiles import write_secret
from meshnode.core.control.grants import (
    check_time,
    session_key_from_text,
    verify_chain,
)
from meshnode.core.control.roles import authorization_from_signed
from meshnode.core.errors import DamagedError, NotAuthenticatedError, NotFoundError, UsageError
from meshnode.core.keys import Key, key_id_of
from meshnode.core.membership.genesis import Genesis
from meshnode.core.vocabulary import ACTIONS

NOW_S = 1_795_132_800.7
DAY_S = 86400


@pytest.fixture
def chance():
    return Random(1).randbytes


@pytest.fixture
def bare_home(tmp_path: Path, chance) -> Home:
    home = Home(tmp_path / "home")
    make_private(home.path)
    genesis = Genesis((Key.new(chance).public,), 1, "test", chance(16))
    home.genesis.write_bytes(genesis.to_bytes())
    return home


@pytest.fixture
def home(bare_home: Home, chance) -> Home:
    write_secret(bare_home.operator_key, chance(32))
    write_secret(bare_home.session_root, chance(32))
    return bare_home


def test_an_operator_gets_a_short_lived_key_for_everything_but_admin(home, chance):
    key = session_key(home, {}, NOW_S, chance)
    (grant,) = verify_chain(key.chain, mesh_id_of(home))
    assert set(grant.actions) == ACTIONS - {"admin", "keys"}
    assert (grant.not_before_s, grant.expires_s) == (int(NOW_S) - 120, int(NOW_S) + 300)
    assert grant.subject == key.key.public
    check_time([grant], NOW_S, 0)
    with pytest.raises(NotAuthenticatedError):
        check_time([grant], NOW_S + 302, 0)


def test_every_key_is_another(home, chance):
    first, second = (session_key(home, {}, NOW_S, chance) for _ in range(2))
    assert first.key.public != second.key.public


def test_the_environment_comes_before_the_home(home, chance):
    made = new_key(home, Scope(), 60, NOW_S, chance)
    found = session_key(home, {"SESSION_API_KEY": made["key"]}, NOW_S, chance)
    assert key_id_of(found.key.public) == made["key_id"]


def test_a_key_of_the_environment_needs_no_home(tmp_path, home, chance):
    made = new_key(home, Scope(), 60, NOW_S, chance)
    elsewhere = Home(tmp_path / "elsewhere")
    assert session_key(elsewhere, {"SESSION_API_KEY": made["key"]}, NOW_S, chance)


def test_a_malformed_key_is_refused_rather_than_passed_over(home, chance):
    with pytest.raises(NotAuthenticatedError):
        session_key(home, {"SESSION_API_KEY": "secret"}, NOW_S, chance)


def test_a_home_without_a_role_can_look_but_not_command(bare_home, chance):
    with pytest.raises(NotAuthenticatedError, match="neither commands nor reads") as raised:
        session_key(bare_home, {}, NOW_S, chance)
    assert "--role operator" in raised.value.hint


def test_a_new_key_is_limited_as_asked(home, chance):
    scope = Scope(("read", "steer"), ("node",), ("agent",), ("review",))
    made = new_key(home, scope, 3600, NOW_S, chance)
    key = session_key_from_text(made["key"])
    (grant,) = verify_chain(key.chain, mesh_id_of(home))
    assert grant.actions == ("read", "steer")
    assert (grant.nodes, grant.agents, grant.specializations) == (
        ("node",),
        ("agent",),
        ("review",),
    )
    assert made["ttl"] == 3600
    assert made["expires_at"] == "2026-11-20T01:00:00.000Z"
    assert made["actions"] == ["read", "steer"]
    assert set(made) == {"key", "key_id", "label", "ttl", "expires_at", "actions"}


def test_a_new_key_without_actions_may_what_the_contract_says(home, chance):
    made = new_key(home, Scope(()), 60, NOW_S, chance)
    assert made["actions"] == ["kill", "read", "register", "steer"]


@pytest.mark.parametrize("ttl_s", [0, -1, 30 * DAY_S + 1])
def test_a_lifetime_out_of_bounds_is_a_usage_error(home, chance, ttl_s):
    with pytest.raises(UsageError):
        new_key(home, Scope(), ttl_s, NOW_S, chance)


def test_an_unknown_action_names_the_nearest(home, chance):
    with pytest.raises(UsageError, match='did you mean "steer"'):
        new_key(home, Scope(("ster",)), 60, NOW_S, chance)


def test_an_invite_is_signed_by_the_operator(home, chance):
    terms = InviteTerms(chance(16), "admitter", "operator", 1, 900)
    word = authorization_from_signed(authorize_invite(home, terms, NOW_S))
    assert word.mesh == mesh_id_of(home)
    assert (word.admitter, word.role, word.uses) == ("admitter", "operator", 1)
    assert word.expires_s - word.issued_s == 900


def test_a_home_of_no_mesh_says_so(tmp_path):
    with pytest.raises(NotFoundError, match="belongs to no mesh"):
        mesh_id_of(Home(tmp_path))


def test_a_damaged_genesis_is_our_own_fault(home):
    home.genesis.write_bytes(b"\xc1")
    with pytest.raises(DamagedError):
        mesh_id_of(home)
