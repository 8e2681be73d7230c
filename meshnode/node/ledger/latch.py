"""One process at a time that asks for the figures of a home's status lines; others do without."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from meshnode.client.home import check_private
from meshnode.store.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK = "statusline.lock"


@contextmanager
def alone(directory: Path) -> Iterator[bool]:
    """Let nobody else ask meanwhile, and tell whether nobody did; nobody is waited for.

    Raises a MeshError for a directory that is not the user's alone.
    """
    check_private(directory)
    with Turn(directory / LOCK, 0).tried() as is_free:
        yield is_free
