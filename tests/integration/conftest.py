"""What tests with a disk begin with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from meshnode.store.database import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "state.db")
    yield database
    database.close()


@pytest.fixture
def unsupervised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a node wait for no supervisor's last word: its agents are scripted."""
    monkeypatch.setattr("meshnode.app.sessions.sessions.LAST_WORD_WAIT_S", 0.0)
