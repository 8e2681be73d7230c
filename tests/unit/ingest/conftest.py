"""What tests of readers share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from rollouts import Counted
from unit.ingest.rotating import Log


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    log = Log(tmp_path)
    yield log
    log.reader.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "sessions").mkdir()
    return tmp_path


@pytest.fixture
def counted(root: Path) -> Iterator[Counted]:
    counted = Counted(root)
    yield counted
    counted.connection.close()
