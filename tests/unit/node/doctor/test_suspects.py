"""Whom `doctor` looks at, and in which order."""

import pytest

from meshnode.app.diagnosis.observations import Attempt, Dial, Shown
from meshnode.core.errors import ConflictError, NotFoundError, UsageError
from meshnode.node.doctor.suspects import Known, asked_for, suspects

ANNA, BERTA, CARL, DORA = (letter * 52 for letter in "abcd")


def member(node_id: str, name: str, state: str = "alive", links: tuple[str, ...] = ()) -> dict:
    address = f"192.0.2.{ord(node_id[0]) - 96}:7707"
    fields = {"node_id": node_id, "name": name, "state": state}
    return fields | {"addresses": [address], "links": list(links)}


MEMBERS = [
    member(ANNA, "anna", links=(BERTA,)),
    member(BERTA, "berta"),
    member(CARL, "carl", "unreachable"),
    member(DORA, "dora", "left"),
]
STATUS = {
    "seeds": ["192.0.2.2:7707", "192.0.2.50:7707"],
    "troubles": [
        {"peer": CARL, "reason": "no answer"},
        {"peer": "192.0.2.50:7707", "reason": "does not answer"},
        {"peer": "192.0.2.60:7707", "reason": "belongs to another mesh (x)"},
    ],
}
KNOWN = Known(ANNA, MEMBERS, STATUS, ("192.0.2.70:7707",))


def test_those_in_trouble_come_first_and_who_left_is_left_out():
    assert [peer.name for peer in suspects(KNOWN)] == ["carl", "192.0.2.50:7707", "berta"]
    carl, seed, berta = suspects(KNOWN)
    assert (carl.trouble, seed.trouble, berta.trouble) == ("no answer", "does not answer", "")
    assert (carl.linked, berta.linked) == (False, True)


@pytest.mark.parametrize("state", ["left", "revoked"])
def test_a_seed_is_looked_at_where_somebody_was_who_is_gone(state):
    hub = member(DORA, "hub", state)
    (address,) = hub["addresses"]
    trouble = {"peer": address, "reason": "belongs to another mesh (x)"}
    known = Known(ANNA, [MEMBERS[0], hub], {"seeds": [address], "troubles": [trouble]})
    (seed,) = suspects(known)
    assert (seed.name, seed.node_id, seed.is_seed) == (address, "", True)
    assert seed.trouble == "belongs to another mesh (x)"
    assert asked_for([address], known)[0].state == state


def test_those_whom_nobody_sent_us_to_are_strangers():
    assert KNOWN.strangers() == [("192.0.2.60:7707", "belongs to another mesh (x)")]


def test_without_a_node_states_are_not_known_and_seeds_come_from_the_configuration():
    asleep = Known(ANNA, MEMBERS, {}, ("192.0.2.70:7707",))
    assert asleep.seeds == ("192.0.2.70:7707",)
    assert not asleep.linked
    assert {peer.state for peer in suspects(asleep)} == {""}


def test_nodes_are_named_by_name_id_prefix_and_address():
    for word in ("berta", BERTA, BERTA[:8], "192.0.2.2:7707"):
        (peer,) = asked_for([word], KNOWN)
        assert (peer.node_id, peer.asked, peer.linked) == (BERTA, True, True)
    (stranger,) = asked_for(["[2001:db8::1]:7707"], KNOWN)
    assert (stranger.node_id, stranger.addresses) == ("", ("[2001:db8::1]:7707",))
    assert len(asked_for(["berta", "berta"], KNOWN)) == 1


@pytest.mark.parametrize("word", ["", " ", "h:0", "h:99999", "::1:7707", "h:", ":7707", "x" * 999])
def test_words_that_make_no_sense_are_the_users(word):
    with pytest.raises(UsageError) as raised:
        asked_for([word], KNOWN)
    assert raised.value.hint


def test_names_of_nobody_and_of_several_are_refused():
    with pytest.raises(NotFoundError, match="nobody"):
        asked_for(["nobody"], KNOWN)
    twins = Known(ANNA, [*MEMBERS, member("e" * 52, "berta")], STATUS)
    with pytest.raises(ConflictError):
        asked_for(["berta"], twins)
    assert {peer.name for peer in suspects(twins)} >= {"berta/bbbbbbbbbb", "berta/eeeeeeeeee"}


def test_a_member_found_at_a_bare_address_is_recognised():
    (peer,) = asked_for(["198.51.100.1:7707"], KNOWN)
    at = Attempt("198.51.100.1:7707", Dial.CONNECTED, shown=Shown(CARL, "m", 0, 9e9))
    found = KNOWN.recognised(peer, [at])
    assert (found.node_id, found.state, found.name) == (CARL, "unreachable", "198.51.100.1:7707")
    ours = Attempt("198.51.100.1:7707", Dial.CONNECTED, shown=Shown(ANNA, "m", 0, 9e9))
    for attempts in ([ours], [], [Attempt("x:1", Dial.REFUSED)]):
        assert KNOWN.recognised(peer, attempts) == peer
