"""What tests of stores share."""

import sqlite3
from collections.abc import Iterator

import pytest

from meshnode.store.migrations import migrate


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection)
    yield connection
    connection.close()
