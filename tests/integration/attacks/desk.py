"""How an attack on a command desk is told from one that did something."""

import pytest
from owner import ROOT, Owner

from meshnode.core.commands.commands import COMMAND
from meshnode.core.errors import MeshError
from meshnode.core.keys import Key, Signed
from meshnode.core.packing import unpack_map


async def refused(owner: Owner, signed: Signed, error: type[MeshError], via: str = "") -> str:
    """Bring a command that must be refused, and look whether anything has changed by it."""
    before = (dict(owner.memory.kept), dict(owner.published.rows), owner.sessions.get("s" * 26))
    with pytest.raises(error) as raised:
        await owner.desk.submit(signed, via)
    assert (owner.memory.kept, owner.published.rows, owner.sessions.get("s" * 26)) == before
    assert not owner.agents.reached.is_set()
    return raised.value.message


def resigned(signed: Signed, key: Key = ROOT, **changed: object) -> Signed:
    """Change what a command says, and sign it again; `...` takes a field away."""
    said = unpack_map(signed.payload) | changed
    return key.sign(COMMAND, {name: value for name, value in said.items() if value is not ...})
