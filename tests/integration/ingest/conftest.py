"""What the tests of this folder share."""

from pathlib import Path

import ccusage
import pytest


@pytest.fixture(scope="package")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install ccusage, once."""
    found = ccusage.install(tmp_path_factory.mktemp("ccusage"))
    if isinstance(found, str):
        pytest.skip(found)
    return found
