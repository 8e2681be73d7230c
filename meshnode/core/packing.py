"""One way to turn values into bytes: canonical MessagePack.

Invariant: `pack` gives the same bytes for equal values (keys sorted, shortest forms), and `unpack`
is total: any bytes give a value or a PeerError, in bounded memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack
import msgspec

from meshnode.core.errors import PeerError

if TYPE_CHECKING:
    from collections.abc import Sequence

DEPTH_MAX = 16  # of lists and maps in each other; deeper: PeerError
PACKED_BYTES_MAX = 1 << 20  # larger: PeerError; nothing in the mesh is written larger than this
_encode = msgspec.msgpack.Encoder().encode


def pack(value: Any) -> bytes:  # noqa: ANN401 - MessagePack carries what JSON does, and bytes
    """Encode a value of None, bool, int, float, str, bytes, list and dict."""
    packed: bytes = msgpack.packb(_sorted(value), use_bin_type=True)
    return packed


def pack_lists(value: Sequence[Any]) -> bytes:
    """Do as `pack` does, five times as quick, for lists without maps: there is nothing to sort."""
    return _encode(value)


def unpack(packed: bytes) -> Any:  # noqa: ANN401 - whatever MessagePack carries
    """Decode bytes; raises PeerError if they are no MessagePack, too large or nested too deep."""
    if len(packed) > PACKED_BYTES_MAX:
        raise PeerError(f"{len(packed)} bytes is more than {PACKED_BYTES_MAX}")
    try:
        value = msgpack.unpackb(packed, raw=False, strict_map_key=False, object_pairs_hook=_unique)
        _check_depth(value)
        return value  # noqa: TRY300 - the check belongs to the decoding
    except (ValueError, TypeError, RecursionError, msgpack.exceptions.UnpackException) as error:
        raise PeerError("not MessagePack") from error


def _check_depth(value: Any) -> None:  # noqa: ANN401 - whatever MessagePack carries
    """Refuse what is nested so deep that somebody's recursion would break on it."""
    level = [value] if isinstance(value, (dict, list)) else []
    for _ in range(DEPTH_MAX):  # level by level: a call for each of a million lists takes 0.4 s
        items = (one.values() if type(one) is dict else one for one in level)
        level = [item for part in items for item in part if type(item) in (list, dict)]
        if not level:
            return
    raise ValueError("nested too deep")


def unpack_map(packed: bytes) -> dict[str, Any]:
    """Decode bytes that must be a map with text keys."""
    value = unpack(packed)
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise PeerError("not a map with text keys")
    return value


def typed(value: Any, kind: type) -> Any:  # noqa: ANN401 - whatever MessagePack carries
    """Return a decoded value if it is of this type; raises TypeError. A bool is no number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
    return value


def _sorted(value: Any) -> Any:  # noqa: ANN401 - whatever MessagePack carries
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_sorted(item) for item in value]
    return value


def _unique(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("a key stands twice")
    return unique
