"""What is remembered of signatures changes no outcome."""

import pytest
from sim.faults import Schedule
from sim.verifying import computing, remembering
from sim.world import boot

from meshnode.core.errors import PeerError
from meshnode.core.keys import Key, Signed, verify

KEY = Key(bytes(range(32)))
OTHER = Key(bytes(32))


def test_what_was_accepted_once_is_accepted_and_nothing_like_it():
    signed = KEY.sign("flush", {"a": 1})
    with remembering():
        for _ in range(2):
            verify(signed, "flush", KEY.public)
            mark = signed.signature
            for forged in (
                Signed("flush", signed.payload + b"\0", mark),
                Signed("flush", signed.payload, mark[:-1] + bytes([mark[-1] ^ 1])),
                Signed("flush", mark[-1:] + signed.payload, mark[:-1]),
                Signed("grant", signed.payload, mark),
            ):
                with pytest.raises(PeerError):
                    verify(forged, forged.type, KEY.public)
            with pytest.raises(PeerError, match="the signature of a flush is wrong"):
                verify(signed, "flush", OTHER.public)


def test_a_key_that_lets_one_forge_is_refused_as_ever():
    with remembering(), pytest.raises(PeerError, match="small order"):
        verify(KEY.sign("flush", {}), "flush", bytes(32))


def test_a_mesh_that_remembers_runs_as_one_that_computes():
    def trace() -> str:
        world = boot(4, 5)
        Schedule(world, 4, ["byzantine", "disk-full", "stale-disk"], 20.0).run()
        return world.trace

    with remembering():
        remembered = trace()
    with computing():
        assert remembered == trace()
