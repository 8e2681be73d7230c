"""What a status line is given, and what is kept for the next: bounded, and never just believed."""

import json
import os
import subprocess
import time

import pytest

from meshnode.client.home import home_at
from session_mesh.statusline import kept
from session_mesh.statusline.line import composed, said

NOW_S = 1_795_132_800.0
FIGURES = {"usage_read": True, "today": {"cost_usd": "1", "unpriced": False}}


@pytest.fixture
def given(monkeypatch):
    """Put bytes on the very stdin of this process."""
    before = os.dup(0)

    def put(raw: bytes, *, ends: bool = True) -> None:
        kept.given.cache_clear()
        reads, writes = os.pipe()
        os.dup2(reads, 0)
        os.close(reads)
        os.write(writes, raw)
        left.append(writes)
        if ends:
            os.close(left.pop())

    left: list[int] = []
    yield put
    for writes in left:
        os.close(writes)
    os.dup2(before, 0)
    os.close(before)
    kept.given.cache_clear()


@pytest.mark.parametrize(
    ("raw", "trouble"),
    [
        (b'{"a": 1}', ""),
        (b"", "stdin is empty"),
        (b"  ", "stdin is not JSON"),
        (b"{", "stdin is not JSON"),
        (b"\xff\xfe\x00{}", "stdin is not JSON"),
        (b"[" * 60_000, "stdin is not JSON"),
        (b"1" * 50_000, "stdin is not JSON"),
        (b"[1]", "stdin is no JSON object"),
        (b"null", "stdin is no JSON object"),
    ],
)
def test_what_is_no_document_is_told_in_a_few_words(given, raw, trouble):
    given(raw)
    assert kept.document()[1] == trouble


def test_a_document_is_bounded_and_read_once(given, monkeypatch):
    monkeypatch.setattr(kept, "DOCUMENT_BYTES_MAX", 1 << 10)
    given(b"{}" + b" " * (1 << 10))
    assert kept.document()[1] == "stdin has more than 1 KiB"
    given(b"{}")
    assert kept.document() == kept.document() == ({}, "")


def test_nobody_is_waited_for_who_writes_nothing(given, monkeypatch):
    monkeypatch.setattr(kept, "GIVEN_S", 0.01)
    given(b"{}", ends=False)
    assert "did not end" in kept.document()[1]


def test_who_writes_on_and_on_is_waited_for_once(given, monkeypatch):
    monkeypatch.setattr(kept, "GIVEN_S", 0.1)
    given(b"")
    drip = "n=0; while [ $n -lt 100 ] && printf ' '; do sleep .02; n=$((n + 1)); done"
    with subprocess.Popen(
        ["sh", "-c", drip], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as writer:
        os.dup2(writer.stdout.fileno(), 0)
        writer.stdout.close()
        assert "did not end" in kept.document()[1]
        given(b"")  # so that nobody reads what comes now


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"form": 0, "sessions": {}, "mesh": {}}',
        b'{"form": 1, "sessions": [], "mesh": {}}',
        b'{"form": 1, "sessions": {"s": 1}, "mesh": {}}',
        b'{"form": 1, "sessions": {}, "mesh": {"at": 1}}',
        b'{"form": 1, "sessions": {"s": {"figures": 3}}, "mesh": {}}',
        b"[" * 60_000,
        b"\xff",
    ],
)
def test_a_file_that_is_no_such_one_is_begun_anew(tmp_path, raw):
    path = tmp_path / kept.NAME
    path.write_bytes(raw)
    assert kept.read(str(path)) == {"form": kept.FORM, "sessions": {}, "mesh": {}}


SUM = {"cost_usd": "1", "unpriced": False}
BUDGET = {"name": "b", "state": "warned", "percent": 85, "held": 0}
GOOD = {
    "usage_read": True,
    "today": SUM | {"records": 3},
    "session_cost_usd": "0.5",
    "session_cost_source": "ledger",
    "mesh_today": SUM | {"nodes_heard": 1, "nodes_known": 2},
    "alive_sessions": 3,
    "more_alive": False,
    "budgets": [BUDGET],
    "coverage": {},
}


def read_as(path, part):
    """Return what is read of a file whose mesh is this part, and whose one session is."""
    for where in ({"mesh": part, "sessions": {}}, {"mesh": {}, "sessions": {"s": part}}):
        path.write_text(json.dumps({"form": kept.FORM} | where))
        yield kept.read(str(path)) == {"form": kept.FORM} | where


def test_what_is_kept_of_all_that_is_known_is_taken(tmp_path):
    parts = [
        {"at": NOW_S, "figures": GOOD},
        {"at": NOW_S, "figures": {}, "lasts_s": kept.SILENT_S},
        {"at": NOW_S, "figures": dict.fromkeys(GOOD), "seen": None, "read_at": NOW_S - 9},
    ]
    for part in parts:
        assert all(read_as(tmp_path / kept.NAME, part))


@pytest.mark.parametrize("name", ["at", "read_at", "lasts_s"])
@pytest.mark.parametrize("value", ["x", True, -1, 10**400, float("nan"), float("inf"), 1e18, []])
def test_moments_that_cannot_be_are_not_taken(tmp_path, name, value):
    part = {"at": NOW_S, "figures": GOOD} | {name: value}
    assert not any(read_as(tmp_path / kept.NAME, part))


ODD = [None, "x", True, 1, 10**400, -1, float("nan"), [], [1], [{}], {}, {"cost_usd": 1}]


@pytest.mark.parametrize(
    "figures",
    [
        *(GOOD | {name: value} for name in GOOD for value in ODD),
        *(GOOD | {"today": SUM | {name: value}} for name in SUM for value in ODD),
        *(GOOD | {"mesh_today": GOOD["mesh_today"] | {"nodes_heard": value}} for value in ODD),
        *(GOOD | {"budgets": [BUDGET | {name: value}]} for name in BUDGET for value in ODD),
        *(GOOD | {"model": value} for value in ODD),
    ],
    ids=str,
)
def test_of_figures_that_are_taken_a_line_can_be_made(tmp_path, figures):
    for is_taken in read_as(tmp_path / kept.NAME, {"at": NOW_S, "figures": figures}):
        if is_taken:
            assert (
                composed(said({}) | json.loads(json.dumps(figures)), colour=True)
                .strip("\x1b")
                .encode()
            )


def test_what_lies_in_the_way_of_the_new_file_is_not_waited_for(tmp_path):
    path = tmp_path / kept.NAME
    os.mkfifo(f"{path}.new")
    kept.write(str(path), {"form": kept.FORM, "sessions": {}, "mesh": {}})
    assert kept.read(str(path)) == {"form": kept.FORM, "sessions": {}, "mesh": {}}
    assert path.is_file()


@pytest.mark.parametrize("kind", ["nothing", "directory", "link", "pipe"])
def test_what_is_no_file_is_begun_anew_and_not_waited_for(tmp_path, kind):
    path = tmp_path / kept.NAME
    if kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/dev/zero")
    elif kind == "pipe":
        os.mkfifo(path)
    assert kept.read(str(path))["sessions"] == {}


def test_the_last_sessions_are_kept_for_their_user_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "SESSIONS_MAX", 2)
    path = tmp_path / kept.NAME
    sessions = {name: {"at": NOW_S, "seen": None, "figures": {}} for name in "abc"}
    kept.write(str(path), {"form": kept.FORM, "sessions": sessions, "mesh": {}})
    assert list(kept.read(str(path))["sessions"]) == ["b", "c"]
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == [kept.NAME]


def test_where_nothing_can_be_kept_nothing_is(tmp_path):
    kept.write(str(tmp_path / "missing" / kept.NAME), {"sessions": {}, "mesh": {}})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("age_s", "grown", "holds"),
    [
        (0, False, True),
        (kept.LASTS_S - 0.1, False, True),
        (kept.LASTS_S, False, False),
        (kept.SOON_S - 0.1, True, True),
        (kept.SOON_S, True, False),
        (-1, False, False),
    ],
)
def test_a_session_is_looked_at_again_sooner_once_its_transcript_has_grown(
    tmp_path, age_s, grown, holds
):
    transcript = tmp_path / "s1.jsonl"
    transcript.write_text("{}\n")
    asked = {"session_id": "s1", "transcript_path": str(transcript)}
    part = {"at": NOW_S, "seen": kept.seen(asked), "figures": FIGURES}
    found = json.loads(json.dumps({"sessions": {kept.key_of(asked): part}}))
    if grown:
        transcript.write_text("{}\n{}\n")
    answer = kept.of_session(found, asked, NOW_S + age_s)
    assert answer == (FIGURES if holds else None)


def test_a_node_that_did_not_answer_is_left_in_peace_for_longer():
    part = {"at": NOW_S, "figures": {}, "lasts_s": 30.0}
    assert kept.lasting(part, NOW_S + 29) == {}
    assert kept.lasting(part, NOW_S + 30) is None
    assert kept.lasting({}, NOW_S) is None


@pytest.fixture
def midnight(monkeypatch):
    """Let midnight be 18:15 UTC; return it."""
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    time.tzset()
    yield kept.midnight_s(NOW_S)
    monkeypatch.undo()
    time.tzset()


def test_what_was_asked_for_before_midnight_does_not_hold_after_it(midnight):
    part = {"at": midnight - 1, "figures": FIGURES}
    assert kept.lasting(part, midnight - 0.5) == FIGURES
    assert kept.lasting(part, midnight) is None


@pytest.mark.parametrize(
    ("read_s", "now_s", "is_told"),
    [
        (600, 600 + kept.TODAY_S, True),
        (600, 601 + kept.TODAY_S, False),
        (0, 10, True),
        (-1, 10, False),
        (20, 10, False),
    ],
)
def test_sums_are_of_today_by_when_they_were_read(midnight, read_s, now_s, is_told):
    figures = FIGURES | {"mesh_today": {}, "alive_sessions": 1}
    left = {"usage_read": True, "alive_sessions": 1}
    read_at, now = midnight + read_s, midnight + now_s
    expected = figures if is_told else left
    assert kept.told({"at": read_at, "figures": figures}, now) == expected
    assert kept.told({"at": now, "read_at": read_at, "figures": figures}, now) == expected


@pytest.mark.parametrize("path", ["", "/nowhere", "\0", "\ud800", "x" * 5000, 7])
def test_a_transcript_that_cannot_be_has_not_been_seen(path):
    assert kept.seen({"transcript_path": path}) is None


@pytest.mark.parametrize(
    "environment",
    [
        {"SESSION_MESH_HOME": "/srv/mesh"},
        {"SESSION_MESH_HOME": "~/mesh"},
        {"XDG_DATA_HOME": "/srv/data"},
        {"XDG_DATA_HOME": " "},
        {},
    ],
)
def test_figures_are_kept_in_the_home_that_verbs_use(monkeypatch, environment):
    for name in ("SESSION_MESH_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert kept.place(os.environ) == str(home_at(None).path / kept.NAME)


@pytest.mark.parametrize(
    ("socket", "place"),
    [("/srv/h/run/node.sock", "/srv/h/run/statusline.json"), ("", ""), ("x", "")],
)
def test_inside_a_session_no_home_is_looked_for(socket, place):
    told = {"SESSION_MESH_TICKET": "t", "SESSION_MESH_SOCKET": socket, "SESSION_MESH_HOME": "/x"}
    assert kept.place(told) == place


@pytest.mark.parametrize(
    ("environment", "colour"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_there_is_colour_unless_somebody_minds(environment, colour):
    assert kept.has_colour(environment) is colour
