"""`watch` and `usage --follow` on a terminal: left as it was found, or not taken at all."""

import signal

import psutil
import pytest
from e2e.caller import Caller
from e2e.fleet import PATIENCE_S, Fleet, Node

pytestmark = pytest.mark.e2e
VERBS = {"watch": (), "usage": ("--follow",)}
ENTERED, LEFT = b"\x1b[?1049h", b"\x1b[?1049l"
DRAWN = b"q ends"
SHELL = """
set -m
"$0" "$@"
echo stopped with $?
read -r line
fg
echo ended with $?
"""


@pytest.fixture(scope="module")
def anna(shared_fleet: Fleet) -> Node:
    return shared_fleet.mesh("anna")[0]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT],
    ids=lambda one: one.name,
)
def test_a_signal_that_ends_it_gives_the_terminal_back(
    anna: Node, verb: str, number: signal.Signals
):
    with Caller(anna, *VERBS[verb], verb=verb) as caller:
        caller.sees(ENTERED)
        caller.sees(DRAWN)
        assert caller.is_raw
        caller.process.send_signal(number)
        caller.sees(LEFT)
        assert caller.ends() == 128 + number


@pytest.mark.parametrize("verb", VERBS)
def test_who_is_stopped_gives_the_terminal_back_and_takes_it_again(anna: Node, verb: str):
    with Caller(anna, *VERBS[verb], verb=verb, shell=SHELL) as caller:
        caller.sees(ENTERED)
        caller.sees(DRAWN)
        caller.type(b"\x1a")
        caller.sees(LEFT)
        caller.sees(b"stopped with 148")
        assert not caller.is_raw
        caller.type(b"\n")
        caller.sees(ENTERED)
        caller.sees(DRAWN)
        assert caller.is_raw
        caller.type(b"q")
        caller.sees(LEFT)
        caller.sees(b"ended with 0")
        assert caller.ends() == 0


def test_who_is_ended_while_it_is_stopped_leaves_the_terminal_to_the_shell(anna: Node):
    with Caller(anna, verb="watch", shell=SHELL.replace("fg\n", "")) as caller:
        caller.sees(DRAWN)
        caller.type(b"\x1a")
        caller.sees(b"stopped with 148")
        (watch,) = psutil.Process(caller.process.pid).children()
        watch.terminate()
        watch.resume()
        watch.wait(PATIENCE_S)
        caller.type(b"\n")
        assert ENTERED not in caller.sees(b"ended with 0")
        assert caller.ends() == 0


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("watch",), b"that is how it is now"),
        (("usage", "--follow"), b"total"),
        (("steer", "nobody", "hello"), b"error:"),
        (("doctor",), b"told its time"),
        (("nodes",), b"anna"),
    ],
    ids=lambda one: one[0] if isinstance(one, tuple) else "",
)
def test_a_dumb_terminal_gets_lines_alone(anna: Node, words: tuple[str, ...], shown: bytes):
    with Caller(anna, *words[1:], verb=words[0], TERM="dumb", NO_COLOR="") as caller:
        before = caller.sees(shown)
        if words[0] in VERBS:
            caller.type(b"\x03")
        else:
            caller.sees(b"\n")
        code = caller.ends()
    assert b"\x1b" not in before
    assert (code == 130) == (words[0] in VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_a_key_that_is_pressed_before_anything_is_drawn_is_heard(anna: Node, verb: str):
    with Caller(anna, *VERBS[verb], verb=verb) as caller:
        caller.type(b"q")
        caller.sees(LEFT)
        assert caller.ends() == 0


def test_who_has_more_sessions_than_lines_scrolls(anna: Node):
    for number in range(4):
        anna.call("run", "--detach", "--agent-id", f"agent-{number}", "--", "cat")
    with Caller(anna, verb="watch") as caller:
        caller.resize(100, 6)
        caller.sees(b"1 to 2 of 4")
        caller.type(b" ")
        caller.sees(b"3 to 4 of 4")
        caller.type(b"\x1b[A")
        caller.sees(b"2 to 3 of 4")
        caller.type(b"q")
        assert caller.ends() == 0


@pytest.mark.parametrize(
    ("words", "asked", "typed", "said"),
    [
        (("steer", "nobody", "-"), b"type the message", b"hello\n\x04", b"no session"),
        (("register", "-f", "-"), b"type the registrations", b"x\n\x04", b"error:"),
        (("config", "check", "-"), b"type the configuration", b"mdns: off\n\x04", b"is right"),
        (("receipt", "verify", "-"), b"type the receipt", b"x\n\x04", b"error:"),
    ],
    ids=lambda one: one[0] if isinstance(one, tuple) else "",
)
def test_who_is_to_type_is_asked(
    anna: Node, words: tuple[str, ...], asked: bytes, typed: bytes, said: bytes
):
    with Caller(anna, *words[1:], verb=words[0]) as caller:
        caller.sees(asked)
        caller.type(typed)
        caller.sees(said)
