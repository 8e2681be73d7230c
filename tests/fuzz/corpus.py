"""The corpus: small inputs by decoder, and what is made of them by mutation.

Invariant: a decoder's folder holds at most FILES_MAX files of at most FILE_BYTES_MAX bytes, each
named by its hash, so that one input is kept once. What ever crashed begins with `crash-` and stays.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

ROOT = Path(__file__).parents[1] / "corpus"
FILES_MAX = 24  # beside those of crashes
FILE_BYTES_MAX = 1280  # what is valid may be longer
INPUT_BYTES_MAX = 8192  # of a mutation
CRASH = "crash-"
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 1 << 16, 1 << 40, (1 << 63) - 1, (1 << 64) - 1, -(1 << 63), 1.5, -0.0,
    float("nan"), float("inf"), 1e300, "", "text", "\ud800", "\0", "a" * 300, b"", bytes(32),
    b"\xff" * 64, [], [None], [[b"a", b"b"]], {}, {"a": 1}, {"": b"\xff"}, {1: 2},
)  # fmt: skip
PIECES = (b"\0", b"\xff", b"\xff" * 9, b"'", b'"', b"\n", b"{}", b"[", b"-1", b"1e999", b"9" * 30)


def folder_of(name: str) -> Path:
    return ROOT / name.replace(" ", "_")


def inputs_of(name: str) -> list[bytes]:
    """Return what is kept for a decoder, always in the same order."""
    return [file.read_bytes() for file in sorted(folder_of(name).glob("*"))]


def keep(name: str, raw: bytes, *, crashed: bool = False) -> bool:
    """Keep an input, if it is new and there is room; returns whether it was."""
    folder = folder_of(name)
    file = folder / f"{CRASH if crashed else ''}{sha256(raw).hexdigest()[:16]}"
    kept = [one for one in folder.glob("*") if not one.name.startswith(CRASH)]
    full = len(kept) >= FILES_MAX or len(raw) > FILE_BYTES_MAX
    if file.exists() or (full and not crashed):
        return False
    folder.mkdir(parents=True, exist_ok=True)
    file.write_bytes(raw)
    return True


def mutated(raw: bytes, others: Sequence[bytes], rng: Random, *, packed: bool) -> bytes:
    """Return an input that is like this one, somewhere: bits, bytes, pieces, or whole values."""
    if packed and rng.random() < 0.6:
        return _with_odd_value(raw, others, rng)
    changed = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 5])):
        _touch(changed, others, rng)
    return bytes(changed[:INPUT_BYTES_MAX])


def _touch(changed: bytearray, others: Sequence[bytes], rng: Random) -> None:
    place = rng.randrange(len(changed) + 1)
    match rng.randrange(7):
        case 0 if place < len(changed):
            changed[place] ^= 1 << rng.randrange(8)
        case 1 if place < len(changed):
            changed[place] = rng.randrange(256)
        case 2:
            changed[place:place] = rng.randbytes(rng.choice([1, 2, 9]))
        case 3:
            changed[place:place] = rng.choice(PIECES)
        case 4:
            del changed[place:]
        case 5:  # spliced: its head, another's tail
            other = rng.choice(others)
            changed[place:] = other[rng.randrange(len(other) + 1) :]
        case _:
            del changed[place : place + rng.choice([1, 2, 9])]


def _with_odd_value(raw: bytes, others: Sequence[bytes], rng: Random) -> bytes:
    """Put an odd value, or a part of another input, in place of some part, however deep."""
    values = [_unpacked(one) for one in (raw, rng.choice(others))]
    odd = _part(values[1], rng) if rng.random() < 0.3 else rng.choice(ODD)
    try:
        return msgpack.packb(  # type: ignore[no-any-return] # msgpack has no types
            _replaced(values[0], odd, rng), unicode_errors="surrogatepass"
        )[:INPUT_BYTES_MAX]
    except (ValueError, TypeError, OverflowError):
        return raw


def _unpacked(raw: bytes) -> Any:
    try:
        return msgpack.unpackb(
            raw, strict_map_key=False, unicode_errors="surrogatepass", max_buffer_size=1 << 20
        )
    except (ValueError, TypeError, msgpack.exceptions.UnpackException):
        return None


def _part(value: Any, rng: Random) -> Any:
    while isinstance(value, dict | list) and value and rng.random() < 0.8:
        value = rng.choice(list(value.values()) if isinstance(value, dict) else value)
    return value


def _replaced(value: Any, odd: Any, rng: Random) -> Any:
    """Deeper values are as likely to be replaced as shallow ones; texts and bytes are bent too."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        rest = {k: v for k, v in value.items() if k != key}
        return rest if rng.random() < 0.1 else {**value, key: _replaced(value[key], odd, rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        chosen = [_replaced(value[at], odd, rng)]
        if rng.random() < 0.15:
            chosen = rng.choice([[], [value[at], *chosen]])
        return [*value[:at], *chosen, *value[at + 1 :]]
    if isinstance(value, bytes) and value and rng.random() < 0.5:
        bent = bytearray(value)
        inner = _unpacked(value)
        if isinstance(inner, dict | list) and rng.random() < 0.7:
            return msgpack.packb(_replaced(inner, odd, rng), unicode_errors="surrogatepass")
        _touch(bent, [value], rng)
        return bytes(bent)
    return odd
