"""Whole meshes in one process verify each signature once."""

import pytest
from sim.verifying import remembering


@pytest.fixture(autouse=True, scope="module")
def _remembering():
    with remembering():
        yield
