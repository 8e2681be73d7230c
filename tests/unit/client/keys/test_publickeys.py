"""Public keys as people write them, and which of them can be a person's."""

import pytest

from meshnode.client.keys.publickeys import operator_key_from, public_key_from
from meshnode.core.errors import UsageError
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key

KEY = Key.new(lambda size: bytes(range(size))).public


def test_a_device_is_named_in_either_spelling():
    assert public_key_from(KEY.hex(), "a device", "") == KEY
    assert public_key_from(node_id_of(KEY), "a device", "") == KEY


def test_a_person_is_named_in_hexadecimal_digits_alone():
    assert operator_key_from(KEY.hex(), "") == KEY
    with pytest.raises(UsageError, match="a node's id, not a person's key") as refused:
        operator_key_from(node_id_of(KEY), "ask them")
    assert refused.value.hint == "ask them"


@pytest.mark.parametrize("text", ["", "ab", "x" * 52, "0" * 64, "not a key"])
def test_what_is_no_key_is_refused_in_the_words_of_who_asks(text):
    with pytest.raises(UsageError, match="not an operator's public key"):
        operator_key_from(text, "")
