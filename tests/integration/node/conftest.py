"""What writes feeds to a database."""

import pytest
from integration.node.writers import Writers


@pytest.fixture
async def writers(database):
    return Writers(database)
