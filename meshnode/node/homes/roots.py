"""What a home knows about the mesh's roots, in a file of its own: read without a node too.

Invariant: the file only repeats what the control set says and which exchanges this node followed;
without it, the genesis and the control set say it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meshnode.client.home import read_plain
from meshnode.client.keys.keyfiles import FILE_BYTES_MAX, write_whole
from meshnode.core.errors import PeerError
from meshnode.core.keys import parse_public
from meshnode.core.membership.certificates import leads_to_root
from meshnode.core.packing import pack, typed, unpack_map

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshnode.client.home import Home
    from meshnode.core.control.succession import Succession
    from meshnode.core.ids import NodeId
    from meshnode.core.membership.genesis import Genesis

FOLLOWED_MAX = 64  # exchanges that are remembered; of earlier ones nobody has another any more


def known_roots(home: Home, genesis: Genesis) -> tuple[bytes, ...]:
    """Return the roots that this home trusts, the oldest first."""
    return _read(home, genesis)[0] or genesis.root_keys


def followed_by(home: Home, genesis: Genesis) -> tuple[bytes, ...]:
    """Return the exchanges that this home's node has followed."""
    return _read(home, genesis)[1]


def remember_roots(home: Home, genesis: Genesis, succession: Succession) -> None:
    """Write down who the roots are; raises a MeshError if the disk does not take it."""
    write_whole(home.roots, packed_roots(genesis, succession))


def packed_roots(genesis: Genesis, succession: Succession) -> bytes:
    """Return what is written down of them."""
    kept = {
        "mesh": genesis.mesh_id,
        "present": list(succession.present),
        "followed": succession.followed[:FOLLOWED_MAX],
    }
    return pack(kept)


def root_behind(chain: Sequence[bytes], node_id: NodeId, roots: Sequence[bytes]) -> bytes | None:
    """Return the root that a chain of certificates leads to."""
    return next((root for root in roots if leads_to_root(chain, node_id, (root,))), None)


def _read(home: Home, genesis: Genesis) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    try:
        kept = unpack_map(read_plain(home.roots, FILE_BYTES_MAX))
        present, followed = (
            tuple(typed(one, bytes) for one in typed(kept[name], list))
            for name in ("present", "followed")
        )
        for key in present:
            parse_public(key)
        if kept["mesh"] != genesis.mesh_id:  # the home has joined another one since
            return (), ()
    except (OSError, PeerError, KeyError, TypeError, ValueError):
        return (), ()
    return present, followed
