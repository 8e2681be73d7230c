"""A database, and what writes feeds to it."""

import pytest
from integration.node.writers import Writers

from meshnode.store.database import Database


@pytest.fixture
def database(tmp_path):
    database = Database(tmp_path / "state.db")
    yield database
    database.close()


@pytest.fixture
async def writers(database):
    return Writers(database)
