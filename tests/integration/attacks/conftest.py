"""What several attacks begin with."""

import pytest
from auditing import KINDS, Log


@pytest.fixture
def log(tmp_path):
    """An audit log with ten records, as its node wrote them."""
    log = Log(tmp_path / "state.db")
    log.note(*KINDS, agent="builder", detail="as it was")
    assert log.verdict(log.head()) is None
    yield log
    log.close()
