"""Mark every test by the folder it lives in, and give each kind the time it may take."""

from pathlib import Path

import pytest

KINDS = ("property", "sim", "integration", "e2e")
TIMEOUTS_S = {"property": 120, "sim": 180, "integration": 60, "e2e": 120}  # others: pyproject.toml
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        kind = item.path.relative_to(HERE).parts[0]
        if kind in KINDS:
            item.add_marker(kind)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUTS_S[kind]))
