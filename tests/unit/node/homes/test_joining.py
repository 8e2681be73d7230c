"""What is told of a clock when a device joins: what the answer proves, or the invite."""

import os
import time

import pytest
from msgspec.structs import replace

from meshnode.app.membership.admission import INVITE_LIFE_S_MAX
from meshnode.client.home import Home
from meshnode.core.errors import UnreachableError
from meshnode.core.ids import MeshId, node_id_of
from meshnode.core.keys import Key
from meshnode.core.membership.enrolment import INVITE_ID_BYTES, SECRET_BYTES, Invite
from meshnode.node.homes.joining import clock_off_s, join

AT_S = 1000.0  # the other clock showed this, or anything up to a second later


@pytest.mark.parametrize(
    ("asked_s", "answered_s", "off_s"),
    [
        (1000.1, 1000.2, 0.0),
        (1000.9, 1001.7, 0.0),
        (999.0, 1000.5, 0.0),
        (1001.5, 1001.6, 0.5),
        (4600.5, 4601.0, 3599.5),
        (-2600.0, -2599.0, -3599.0),
    ],
)
def test_a_clock_is_off_by_what_neither_the_wait_nor_whole_seconds_explain(
    asked_s, answered_s, off_s
):
    assert clock_off_s(AT_S, asked_s, answered_s) == pytest.approx(off_s)


def test_a_clock_that_shows_a_time_before_the_invite_is_told_where_nobody_answers(tmp_path):
    """TLS refuses certificates that are not valid yet, and gRPC does not say so."""
    ids = MeshId("a" * 52), node_id_of(Key.new(os.urandom).public)
    names = Key.new(os.urandom).public, *ids, bytes(INVITE_ID_BYTES), bytes(SECRET_BYTES)
    made_s = int(time.time())
    invite = Invite(*names, made_s + 900, ("127.0.0.1:1",), commands=False)
    behind = replace(invite, expires_s=made_s + INVITE_LIFE_S_MAX + 60)
    for one, is_told in ((invite, False), (behind, True)):
        with pytest.raises(UnreachableError) as caught:
            join(Home(tmp_path / str(is_told)), one.to_text())
        assert caught.value.message.startswith("the inviting node does not answer")
        assert ("set this machine's clock" in caught.value.hint) is is_told
