"""The command line of the simulator: what it refuses, and how it ends."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest
from sim import __main__ as command
from sim.faults import FAULTS, Fault, Schedule
from sim.questions import QUESTIONS
from sim.report import Progress, show
from sim.world import boot

REFUSED = {
    "--nodes 1": "--nodes must be from 2 to 5000, not 1",
    "--nodes 0": "--nodes must be from 2 to 5000, not 0",
    "--nodes 5001": "--nodes must be from 2 to 5000, not 5001",
    "--nodes many": "invalid int value",
    "--seed -1": "--seed must be 0 or more",
    "--seeds 0": "--seeds must be 1 or more",
    "--for 0": "--for must be more than 0 seconds",
    "--for nan": "--for must be more than 0 seconds",
    "--for inf": "--for must be more than 0 seconds",
    "--preset long --node-seconds 0.5": "--node-seconds must be 1 or more",
    "--preset long --node-seconds inf": "--node-seconds must be 1 or more",
    "--preset long --out /nowhere/at/all": "--out /nowhere/at/all cannot be used",
    "--preset long --out /": "--out / cannot be used",
    "--processes 0": "unrecognized arguments: --processes",
    "--seed 7 --seeds 5": "give one of them",
    "--seed 0 --seeds 5": "give one of them",
    "--nodes 65 --seeds 5": "--seeds does not go with more than 64 nodes",
    "--nodes 65 --for 5": "--for does not go with more than 64 nodes",
    "--nodes 65 --check-replay": "give --trace too",
    "--preset thousand --check-replay": "give --trace too",
    "--preset thousand --nodes 70": "--nodes does not go with --preset thousand",
    "--preset long --nodes 9": "--nodes does not go with --preset long",
    "--preset long --seed 0": "--seed does not go with --preset long",
    "--preset long --faults crash": "--faults does not go with --preset long",
    "--nodes 9 --node-seconds 5": "--node-seconds does not go with small meshes",
    "--nodes 65 --out x": "--out does not go with more than 64 nodes",
    "--preset million": "invalid choice",
    "--faults idle": ", ".join(sorted(FAULTS)),
    "--nodes 64 --faults news": ", ".join(sorted(FAULTS)),
    "--nodes 65 --faults loss": ", ".join(sorted(QUESTIONS)),
    "--preset thousand --faults loss": ", ".join(sorted(QUESTIONS)),
    "--faults crash,": "'' is no fault",
    "--faults=": "'' is no fault",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_done_is_refused_with_a_sentence(words: str, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(words.split())
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "./dev sim: error: " in said
    assert REFUSED[words] in said


def test_the_help_lists_what_each_size_knows_and_every_preset():
    said = " ".join(command.parser_of().format_help().split())
    assert ", ".join(sorted(FAULTS)) in said
    assert ", ".join(sorted(QUESTIONS)) in said
    assert all(f"{preset} " in command.EPILOG for preset in [*command.PRESETS, "long"])


def test_a_seed_that_passes_says_so_last(capsys):
    assert command.main(["--seed", "3", "--nodes", "3", "--faults", "reset", "--for", "5"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("passed: 1 seed, ")
    assert last.endswith(" events")


def test_a_seed_that_fails_says_last_how_to_run_it_again(monkeypatch, capsys):
    def failing(seed: int, *_: object) -> dict:
        failed = "broken\nat length" * (seed == 1)
        return {"seed": seed, "nodes": 2, "faults": "loss", "failed": failed, "events": 5}

    monkeypatch.setattr(command, "one_seed", failing)
    assert command.main(["--seeds", "3", "--faults", "loss"]) == 1
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "FAILED: seed 1: ./dev sim --seed 1 --faults loss"
    assert "seed 1 failed: broken\nat length" in said.err


def test_a_run_whose_faults_were_all_skipped_fails(monkeypatch, capsys):
    def skipped(schedule: Schedule, kind: type[Fault]) -> None:
        schedule.skipped[kind.name] += 1

    monkeypatch.setattr(Schedule, "_begin", skipped)
    assert command.main(["--seed", "1", "--nodes", "3", "--faults", "crash", "--for", "5"]) == 1
    said = capsys.readouterr().out
    assert "nothing happened: skipped ['crash']" in said
    assert said.splitlines()[-1].startswith("FAILED: seed 1: ./dev sim --seed 1 --nodes 3 ")


def test_faults_and_counts_are_shown_by_name_after_the_rest():
    rows = ["count b", "fault z", "seed", "count a", "fault c", "events"]
    shown = [line[:7].strip() for line in show(dict.fromkeys(rows, 1)).splitlines()]
    assert shown == ["seed", "events", "fault c", "fault z", "count a", "count b"]


def test_a_big_mesh_replays_when_traced(capsys):
    words = ["--nodes", "65", "--faults", "idle", "--trace", "--check-replay", "--json"]
    assert command.main(words) == 0
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert answer["replays"] is True
    assert answer["ended"].startswith("passed: 1 question answered, ")
    assert "frames a node and second" in said.err


def test_an_interrupted_run_shows_what_there_is():
    root = Path(__file__).parents[2]
    words = [sys.executable, "tests/sim", "--nodes", "80", "--faults", "idle,starvation"]
    with subprocess.Popen(
        words, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            assert "idle" in run.stderr.readline()  # told once its question is done
            run.send_signal(signal.SIGTERM)
            out, _ = run.communicate(timeout=30)
        finally:
            run.kill()
    assert run.returncode == 130
    assert "frames a node and second" in out
    assert out.splitlines()[-1].startswith("INTERRUPTED")


def test_progress_is_told_while_a_mesh_runs():
    said = []
    heard = Event()

    def tell(line: str) -> None:
        said.append(line)
        heard.set()

    with Progress(tell, every_s=0.01) as progress:
        assert heard.wait(10.0)
        world = boot(1, 2)
        progress.doing, progress.world = "news", world
        for _ in range(2):  # the first may have been under way already
            heard.clear()
            assert heard.wait(10.0)
    assert said[0] == "making the mesh"
    assert said[-1] == f"news: {world.now_s:.1f} virtual s, {world.events:,} events"
