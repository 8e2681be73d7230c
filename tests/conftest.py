"""Mark each test by its folder, give each kind its time, and begin with the longest."""

import gc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

KINDS = ("property", "sim", "integration", "e2e")
TIMEOUTS_S = {"property": 120, "sim": 180, "integration": 60, "e2e": 120}  # others: pyproject.toml
LONGEST = "e2e/test_network.py"  # first: begun last, it would leave the other worker idle
COLLECT_EVERY = 100_000  # objects made: Python's usual 700 cost a fifth of a simulated mesh
HERE = Path(__file__).parent

# How long an example takes says how busy the machine is, and nothing about what is tested.
# With CI set, Hypothesis starts from its profile "ci": the same examples in every run.
settings.register_profile("timeless", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("timeless")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        kind = item.path.relative_to(HERE).parts[0]
        if kind in KINDS:
            item.add_marker(kind)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUTS_S[kind]))
    items.sort(key=lambda item: item.path != HERE / LONGEST)


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY, 20, 100)
