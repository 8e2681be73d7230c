"""What forged, borrowed and malformed receipts make a user believe: nothing."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace
from owner import (
    KEY,
    NODE,
    STRANGER,
    Owner,
)

from meshnode.client.commands.orders import outcome_of
from meshnode.core.commands.commands import (
    RECEIPT,
    Command,
    receipt_from_signed,
    sign_command,
    sign_receipt,
)
from meshnode.core.errors import (
    PeerError,
)
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Signed
from meshnode.core.packing import unpack_map


@pytest.fixture
def owner() -> Owner:
    return Owner()


RECEIPT_CHANGES: list[tuple[str, Callable[[Command, Signed], dict[str, object]]]] = [
    ("of another command", lambda _c, _s: {"command_id": bytes(16)}),
    ("of other content", lambda _c, _s: {"command_hash": bytes(32)}),
    ("of another session", lambda _c, _s: {"session": "x" * 26}),
    ("of another mesh", lambda _c, _s: {"mesh": "another"}),
]


@pytest.mark.parametrize(("name", "change"), RECEIPT_CHANGES, ids=[n for n, _ in RECEIPT_CHANGES])
async def test_a_genuine_receipt_of_something_else_is_not_believed(
    owner: Owner, name: str, change: Callable[[Command, Signed], dict[str, object]]
):
    command = owner.command()
    signed = sign_command(KEY, command)
    receipt = await owner.submit(signed)
    assert outcome_of(signed, sign_receipt(NODE, receipt))["receipt_verified"] is True
    forged = sign_receipt(NODE, replace(receipt, **change(command, signed)))
    with pytest.raises(PeerError, match="not genuine"):
        outcome_of(signed, forged)


async def test_a_receipt_that_another_node_has_signed_is_not_believed(owner: Owner):
    signed = owner.order()
    receipt = await owner.submit(signed)
    forged = sign_receipt(STRANGER, receipt)
    with pytest.raises(PeerError):
        receipt_from_signed(forged, NODE.public)
    with pytest.raises(PeerError, match="not genuine"):
        outcome_of(signed, forged)
    named_itself = sign_receipt(STRANGER, replace(receipt, node=node_id_of(STRANGER.public)))
    with pytest.raises(PeerError, match="not genuine"):
        outcome_of(signed, named_itself)


async def test_a_receipt_with_a_time_or_numbers_that_are_none_is_not_believed(owner: Owner):
    signed = owner.order()
    said = unpack_map((await owner.desk.submit(signed, "")).payload)
    for changed in (
        {"at": float("nan")},
        {"at": 1e300},
        {"at": -1.0},
        {"processes": {"found": "\x1b[2J"}},
        {"processes": {"survivors": [b"x"]}},
        {"processes": [1]},
    ):
        with pytest.raises(PeerError, match="not genuine"):
            outcome_of(signed, NODE.sign(RECEIPT, {**said, **changed}))
