"""`usage --follow` beyond the moment at which it was begun: its span moves on with the clock."""

import json
from pathlib import Path

import pytest
from gateway_log import line

from meshnode.client.durations import seconds_of
from session_mesh import call
from session_mesh.views import monitor

EVENING = "2026-11-20T23:50:00Z"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "access.log"
    path.write_text(line("r1", "today", at="2026-11-20T22:00:00Z"))
    return path


@pytest.fixture
def followed(run, log: Path, monkeypatch: pytest.MonkeyPatch):
    """Follow from 23:50 on, each look at the next of some moments; return what each shows."""

    def followed(*words: str, looks: tuple[str, ...]) -> list[dict]:
        clock, rest = [EVENING], list(looks)
        monkeypatch.setattr(call, "wall_s", lambda: seconds_of(clock[0]))

        def pause(_pause_s: float) -> None:
            if not rest:
                raise KeyboardInterrupt
            clock[0] = rest.pop(0)
            with log.open("a") as file:
                file.write(line(clock[0], "later", at=clock[0]))

        monkeypatch.setattr(monitor.time, "sleep", pause)
        where = ("--source", "higress", "--path", str(log), "--tz", "UTC")
        code, out, err = run("usage", *where, *words, "--follow", "-o", "json")
        assert code == 130, err
        return [json.loads(one) for one in out.splitlines()]

    return followed


def sessions(value: dict) -> list[str]:
    return [group["key"]["session"] for group in value["groups"]]


@pytest.mark.parametrize(
    ("words", "at"),
    [(("--days", "1"), "2026-11-21T00:00:10Z"), (("--since", "1d"), "2026-11-21T22:40:10Z")],
    ids=("days", "since"),
)
def test_what_is_followed_moves_on_with_the_clock(followed, words: tuple[str, ...], at: str):
    before, after = followed(*words, looks=(at,))
    assert (sessions(before), sessions(after)) == (["today"], ["later"])


def test_prices_of_today_are_those_of_the_day_it_is(followed, tmp_path: Path):
    prices = tmp_path / "prices.yaml"
    prices.write_text(
        "prices:\n"
        "  - {model: m, input: 1.00, output: 1.00, effective_until: 2026-11-21}\n"
        "  - {model: m, input: 3.00, output: 3.00, effective_from: 2026-11-21}\n"
    )
    words = ("--prices", str(prices), "--prices-at", "today")
    before, after = followed(*words, looks=("2026-11-21T00:00:10Z",))
    assert (float(before["cost_usd"]), float(after["cost_usd"])) == (10e-6, 60e-6)


def test_an_end_that_is_reached_leaves_the_last_figures(followed):
    words = ("--days", "1", "--until", "2026-11-21")
    looks = ("2026-11-20T23:55:00Z", "2026-11-21T00:00:10Z")
    shown = followed(*words, looks=looks)
    assert [one["records"] for one in shown] == [1, 2]
