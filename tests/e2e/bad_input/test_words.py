"""Words that are too long, are not words, or try to do something to the terminal."""

import contextlib
import os
import pty
import subprocess

import pytest
from e2e.bad_input.refusal import refused
from e2e.fleet import PROGRAM, Answer, Node, wait_until

NASTY = "a\x1b[31mred\nline two\x07\u202eoverride"
LONG = "x" * 5000
TOO_LONG = [
    ("list", "--node", LONG),
    ("list", "--agent-id", LONG),
    ("list", "--spec", LONG),
    ("list", "--owner", LONG),
    ("list", "--label", f"{LONG}=x"),
    ("show", LONG),
    ("logs", LONG),
    ("steer", LONG, "hello"),
    ("steer", "patient", "y" * 40_000),
    ("steer", "patient", "\u20ac" * 20_000),
    ("steer", "patient", "--direction", LONG),
    ("kill", LONG, "--yes"),
    ("kill", "patient", "--yes", "--grace", "1h"),
    ("register", "--spec", LONG, "--agent-id", "a"),
    ("register", "--spec", "s", "--agent-id", LONG),
    ("register", "--spec", "s", "--agent-id", "a", "--attr", f"k={LONG}"),
    ("register", "--spec", "s", "--agent-id", "a", "--attr", f"{LONG}=v"),
    ("run", "--agent-id", LONG, "--detach", "--", "cat"),
    ("run", "--title", LONG, "--detach", "--", "cat"),
    ("run", "--label", f"k={LONG}", "--detach", "--", "cat"),
    ("run", "--label", f"{LONG}=v", "--detach", "--", "cat"),
]


@pytest.fixture(scope="module")
def patient(anna):
    anna.call("run", "--detach", "--agent-id", "patient", "--", "cat")
    yield anna
    anna.call("kill", "patient", "--force")


@pytest.mark.parametrize("words", TOO_LONG, ids=lambda words: " ".join(words)[:24])
def test_what_is_too_long_is_refused_and_not_repeated_at_length(patient, words):
    answer = patient.call(*words[:1], "-o", "json", *words[1:])
    assert answer.code == 2, answer
    assert len(answer.err.splitlines()) == 1
    assert len(answer.err) < 1000
    alive = patient.sessions("--filter", "alive")
    assert set(alive) <= {"patient", NASTY}
    assert alive["patient"]["message_count"] == 0


def test_a_message_from_stdin_that_is_too_long_or_no_text_is_refused(patient):
    refused(patient, 2, ("at most",), "steer", "patient", "-", stdin="y" * 100_000)
    for words in ((b"steer", b"patient", b"-"), (b"join", b"-")):
        done = subprocess.run(
            [PROGRAM.encode(), *words],
            input=b"\xff\xfe\x00",
            env=patient.environment | {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:strict"},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 2, done
        assert b"UTF-8" in done.stderr


def test_words_that_are_not_utf_8_are_refused(patient):
    for words in ((b"steer", b"patient", b"\xff"), (b"run", b"--title", b"\xff", b"--", b"true")):
        argv = [PROGRAM.encode(), *words]
        done = subprocess.run(argv, env=patient.environment, capture_output=True, check=False)
        assert done.returncode == 2, done
        assert b"not UTF-8" in done.stderr
    argv = [PROGRAM.encode(), b"run", b"--", b"printf", b"%s", b"\xff"]
    done = subprocess.run(argv, env=patient.environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"\xff"), "names of files are nobody's to judge"


def on_terminal(node: Node, *words: str) -> Answer:
    """Call the command line with a terminal for all its streams; what is shown comes as `out`."""
    ours, its = pty.openpty()
    call = subprocess.Popen(
        [PROGRAM, *words], env=node.environment, stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    shown = b""
    with contextlib.suppress(OSError), os.fdopen(ours, "rb", 0) as terminal:  # it ends with EIO
        while piece := terminal.read(4096):
            shown += piece
    return Answer(call.wait(60), shown.decode(), "")


@pytest.fixture(scope="module")
def nasty(anna):
    """A session whose every word tries to do something to the terminal."""
    words = ("--agent-id", NASTY, "--title", NASTY, "--owner", NASTY, "--spec", NASTY)
    label = ("--label", f"k{NASTY}={NASTY}")
    anna.call("run", "--detach", *words, *label, "--", "cat")
    session = anna.sessions("--filter", "alive")[NASTY]["session_id"]
    anna.json("register", "--spec", NASTY, "--agent-id", NASTY, "--attr", f"k={NASTY}")
    anna.json("steer", session, NASTY)
    wait_until(lambda: anna.call("logs", session).out)
    yield session
    anna.call("kill", session, "--force")


NASTY_CALLS = [
    ("list",),
    ("list", "-o", "csv"),
    ("list", "-o", "yaml"),
    ("list", "-o", "json"),
    ("list", "--node", NASTY),
    ("list", "--filter", NASTY),
    ("list", "--label", NASTY),
    ("show", NASTY),
    ("show", f"other{NASTY}"),
    ("find", NASTY),
    ("steer", NASTY, "hello"),
    ("steer", f"other{NASTY}", "hello"),
    ("steer", NASTY, "hello", "--command-id", NASTY),
    ("steer", NASTY, "hello", "--timeout", NASTY),
    ("logs", NASTY),
    ("kill", f"other{NASTY}", "--yes"),
    ("kill", NASTY, "--dry-run"),
    ("register", "--spec", NASTY, "--agent-id", NASTY),
    ("run", "--detach", "--agent-id", NASTY, "--", "true"),
    ("keys", "new", "--action", NASTY),
    ("join", NASTY),
    ("nodes", "--label", NASTY),
    ("events",),
    ("events", "-q"),
    (NASTY,),
    ("list", f"--{NASTY}"),
]


@pytest.mark.parametrize("words", NASTY_CALLS, ids=range(len(NASTY_CALLS)))
def test_no_word_of_others_reaches_a_terminal_raw(anna, nasty, words):
    assert nasty
    shown = on_terminal(anna, *words).out
    printed = shown.replace("\r\n", "\n")
    assert printed
    assert "Traceback" not in printed
    for raw in ("\x1b", "\x07", "\u202e"):
        assert raw not in printed, printed
    allowed = ("yaml", "json")  # their newlines are their own; those of the title are spelled out
    if not set(allowed) & set(words):
        assert "\nline two" not in printed


def test_the_question_before_a_kill_is_escaped_too(anna, nasty):
    ours, its = pty.openpty()
    asking = subprocess.Popen(
        [PROGRAM, "kill", nasty], env=anna.environment, stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    shown = b""
    with contextlib.suppress(OSError), os.fdopen(ours, "r+b", 0) as terminal:
        while b"[y/N]" not in shown:
            shown += terminal.read(4096)
        terminal.write(b"n\n")
        while piece := terminal.read(4096):
            shown += piece
    assert asking.wait(60) == 1
    assert b"\x1b" not in shown
    assert b"nothing was changed" in shown
