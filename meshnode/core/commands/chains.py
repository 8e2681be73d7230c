"""Grant chains that were verified before: a command costs two signatures, not up to five.

Invariant: only what cannot change is remembered, which is that the signatures and links of exactly
these bytes are right. Expiry, roles and revocations are looked at each time, by whoever asks.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from typing import TYPE_CHECKING

from meshnode.core.control.grants import Grant, verify_chain
from meshnode.core.packing import pack_lists

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshnode.core.keys import Signed

CHAINS_MAX = 512  # more: the one unused for longest is verified anew; a few kilobytes each


class Chains:
    """The chains that were verified last."""

    def __init__(self) -> None:
        self._verified: OrderedDict[bytes, tuple[Grant, ...]] = OrderedDict()

    def verified(self, chain: Sequence[Signed], mesh_id: str) -> tuple[Grant, ...]:
        """Return the grants of a chain, not their time; raises NotAuthenticatedError."""
        name = sha256(pack_lists([[mesh_id], *(link.to_list() for link in chain)])).digest()
        grants = self._verified.get(name)
        if grants is None:
            grants = tuple(verify_chain(chain, mesh_id))
            if len(self._verified) >= CHAINS_MAX:
                self._verified.popitem(last=False)
            self._verified[name] = grants
        self._verified.move_to_end(name)
        return grants
