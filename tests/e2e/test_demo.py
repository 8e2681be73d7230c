"""The tour of examples/demo, as `./dev demo --once` runs it: each of its checks is one of ours."""

import subprocess
import sys
from pathlib import Path

import pytest

TOUR = Path(__file__).parents[2] / "examples" / "demo" / "tour.py"
TOUR_WAIT_S = 90  # then it is told to end, and has time to tidy up before pytest loses patience
TIDY_WAIT_S = 20

KEY_LINES = (
    "✔ all three nodes are linked to each other",
    "✔ carl, who owns no session, lists all three with full coverage",
    "✔ carl finds who can draw maps, wherever that is",
    "✔ known models have a price; house-llm-7b is named as unpriced",
    "✔ scout was told, and the receipt is verified",
    "✔ scout obeys: its log says so",
    "✔ /proc agrees: none of them is left",
    "✔ carl notices: berta is unreachable",
    "✔ her session is not forgotten: it is listed as unreachable",
    "✔ mapper was found again: the same session, the same process, running",
    "✔ mapper can be steered again, and answers",
    "✔ carl's bill equals the gateway's log, request by request",
    "✔ nothing of the tour is left on this machine",
)


@pytest.mark.timeout(120)
def test_the_tour_keeps_every_promise_it_makes():
    with subprocess.Popen(
        [sys.executable, TOUR, "--once"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as tour:
        try:
            told, _ = tour.communicate(timeout=TOUR_WAIT_S)
        except subprocess.TimeoutExpired:
            tour.terminate()  # not kill: it has nodes and agents to take along
            told, _ = tour.communicate(timeout=TIDY_WAIT_S)
    missing = [line for line in KEY_LINES if line not in told]
    assert (tour.returncode, missing) == (0, []), told
