"""What `doctor` sees at the addresses of peers: real listeners, and whatever a member may say."""

import time
from dataclasses import replace

import pytest

from meshnode.app.observations import Attempt, Dial
from meshnode.app.peer_diagnosis import Here, Peer, judge_peer
from meshnode.node.observing import Observer, Seen

ANNA, BERTA, MESH = "a" * 52, "b" * 52, "m" * 52
HERE = Here(ANNA, MESH, 1, 0.0, node_runs=True)
ODD = ["", "nonsense", "host:port", "[::1]", "unix:/run/x", "a\0b:1", "[fe80::1%\0]:1", "..:1"]
ODD += ["é:1", f"{'x' * 9999}:1", f"[::1%{'x' * 9999}]:1", f"1:{'9' * 9999}", "127.0.0.1:0"]
PEER = Peer("berta", (), node_id=BERTA, state="unreachable")


async def observed(*peers: Peer) -> list[tuple[Peer, tuple[Attempt, ...]]]:
    seen = Seen()
    await Observer(ANNA, MESH, None, time.time).peers(peers, seen)
    return seen.peers


@pytest.mark.parametrize("address", ODD, ids=lambda address: ascii(address)[:20])
async def test_whatever_a_member_calls_its_address_is_a_fact_and_judged(address):
    ((peer, attempts),) = await observed(replace(PEER, addresses=(address,)))
    assert [one.address for one in attempts] == [address]
    assert attempts[0].dial is not Dial.CONNECTED
    assert [check.ok for check in judge_peer(peer, attempts, HERE)] == [False]
