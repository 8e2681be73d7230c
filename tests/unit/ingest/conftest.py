"""What tests of readers share."""

from pathlib import Path

import pytest
from unit.ingest.rotating import Log


@pytest.fixture
def log(tmp_path: Path):
    log = Log(tmp_path)
    yield log
    log.reader.close()
