"""Any bytes are a value or the peer's fault, and any value comes back from its bytes."""

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from meshnode.core.errors import PeerError
from meshnode.core.packing import PACKED_BYTES_MAX, pack, typed, unpack, unpack_map

integers = st.integers(-(1 << 63), (1 << 64) - 1)
scalars = (
    st.none() | st.booleans() | integers | st.floats(allow_nan=False) | st.text() | st.binary()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(values)
def test_a_value_comes_back_as_it_was(value: Any):
    assert unpack(pack(value)) == value


@given(st.dictionaries(st.text(), values, max_size=5), st.randoms(use_true_random=False))
def test_equal_maps_are_equal_bytes_in_whatever_order_they_were_made(value: dict, chance: Any):
    items = list(value.items())
    chance.shuffle(items)
    assert pack(dict(items)) == pack(value)


@given(st.binary(max_size=300))
@example(b"\xdf\xff\xff\xff\xff")  # a map of four billion
@example(b"\xdd\xff\xff\xff\xff")  # a list of them
@example(b"\xc6\xff\xff\xff\xff")  # so many bytes
@example(b"\x91" * 2000)  # nested deep
@example(b"\x81\x90\xc0")  # a list as a key
@example(b"\x82\xa1a\x01\xa1a\x02")  # a key twice
@example(b"\xa1\xff")  # no UTF-8
@example(b"\xd6\xff\x00\x00\x00\x00")  # a time
@example(b"\xc7\x0c\xff\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x00")  # no time
def test_any_bytes_are_a_value_or_the_peers_fault(packed: bytes):
    for decode in (unpack, unpack_map):
        try:
            decode(packed)
        except PeerError:
            continue


@given(values, st.binary(min_size=1, max_size=4))
def test_what_follows_a_value_is_refused(value: Any, more: bytes):
    with pytest.raises(PeerError):
        unpack(pack(value) + more)


@given(values, st.data())
def test_half_a_value_is_refused(value: Any, data: st.DataObject):
    packed = pack(value)
    with pytest.raises(PeerError):
        unpack(packed[: data.draw(st.integers(0, len(packed) - 1))])


def test_what_is_larger_than_anything_in_the_mesh_is_not_looked_at():
    with pytest.raises(PeerError, match="more than"):
        unpack(pack(bytes(PACKED_BYTES_MAX)))


@given(values)
def test_only_a_map_with_text_keys_is_one(value: Any):
    if isinstance(value, dict):
        assert unpack_map(pack(value)) == value
    else:
        with pytest.raises(PeerError):
            unpack_map(pack(value))


@pytest.mark.parametrize(
    ("value", "kind"), [(True, int), (1, bool), (1.0, int), (math.nan, int), ("", bytes)]
)
def test_a_type_is_itself_and_nothing_like_it(value: Any, kind: type):
    with pytest.raises(TypeError):
        typed(value, kind)
