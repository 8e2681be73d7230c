"""The record a mesh is made from."""

import pytest
from msgspec.structs import replace

from meshnode.core.errors import PeerError
from meshnode.core.keys import Key
from meshnode.core.membership.genesis import Genesis, Limits, genesis_from_bytes
from meshnode.core.packing import pack, unpack_map

ROOT = Key(bytes(range(32))).public
GENESIS = Genesis((ROOT,), 1, "home", bytes(16))


def changed(**fields: object) -> bytes:
    return pack({**unpack_map(GENESIS.to_bytes()), **fields})


def test_a_genesis_comes_back_as_it_was_and_keeps_its_id():
    found = genesis_from_bytes(GENESIS.to_bytes())
    assert found == GENESIS
    assert found.mesh_id == GENESIS.mesh_id
    assert len(GENESIS.mesh_id) == 52


@pytest.mark.parametrize(
    "other",
    [
        replace(GENESIS, root_keys=(Key(bytes(32)).public,)),
        replace(GENESIS, threshold=2),
        replace(GENESIS, name="office"),
        replace(GENESIS, nonce=b"\1" * 16),
        replace(GENESIS, limits=Limits(rows_max=7)),
    ],
)
def test_whatever_differs_makes_another_mesh(other: Genesis):
    assert other.mesh_id != GENESIS.mesh_id


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xc0",
        GENESIS.to_bytes() + b"\xc0",
        changed(roots=[]),
        changed(roots=[bytes(32)]),
        changed(roots=[ROOT[:31]]),
        changed(roots=["text of thirty-two characters..."]),
        changed(roots=[list(ROOT)]),
        changed(roots=5),
        changed(nonce=1 << 40),
        changed(nonce=(1 << 64) - 1),
        changed(threshold=float("inf")),
        changed(threshold="1"),
        changed(limits=[1, 2]),
        changed(limits=[1, 2, 3, 4, 5]),
        changed(limits=[1, 2, 3, float("inf")]),
        changed(more="fields"),
        changed(name=None),
    ],
)
def test_what_is_no_genesis_is_refused(packed: bytes):
    with pytest.raises(PeerError):
        genesis_from_bytes(packed)


def test_another_encoding_of_the_same_values_is_refused():
    value = unpack_map(GENESIS.to_bytes())
    backwards = b"\x86" + b"".join(
        pack(key) + pack(value[key]) for key in sorted(value, reverse=True)
    )
    assert unpack_map(backwards) == value
    with pytest.raises(PeerError, match="not canonical"):
        genesis_from_bytes(backwards)
