# ruff: noqa: S603, T201 - a script beside its story: it prints, and starts its own copy
"""A stand-in for an agent, without dependencies: it walks over a map and says each step.

It reads steers from stdin, one line each: `direction: west` turns it, anything else is noted. And
it starts a helper which makes a kill worth watching: deaf to SIGTERM, in a session of its own.
"""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from types import FrameType

STEPS_MAX = 4500  # half an hour: nobody finds it walking tomorrow
STEP_S = 0.4
MOVES = {"north": (0, 1), "east": (1, 0), "south": (0, -1), "west": (-1, 0)}


def main() -> None:
    """Walk until told to end, or until the steps are used up."""
    signal.signal(signal.SIGTERM, on_term)
    say(f"here is {os.environ.get('SESSION_MESH_AGENT_ID', 'nobody in particular')}")
    helper = subprocess.Popen([sys.executable, __file__, "--helper"], start_new_session=True)
    say(f"started helper {helper.pid}")
    try:
        walk(heard())
    finally:
        helper.kill()


def walk(steers: "queue.SimpleQueue[str]") -> None:
    """Take one step after the other, and look for steers between them."""
    heading, x, y = "north", 0, 0
    for step in range(1, STEPS_MAX + 1):
        while not steers.empty():
            heading = obey(steers.get(), heading)
        dx, dy = MOVES[heading]
        x, y = x + dx, y + dy
        say(f"step {step}: went {heading}, now at ({x}, {y})")
        time.sleep(STEP_S)


def obey(steer: str, heading: str) -> str:
    """Answer one steer; returns the new heading."""
    say(f"told: {steer}")
    name, colon, direction = steer.partition(":")
    if not (colon and name == "direction"):
        say("noted, and on we go")
        return heading
    if direction.strip() not in MOVES:
        say(f"no such direction here; still heading {heading}")
        return heading
    say(f"turning {direction.strip()}")
    return direction.strip()


def heard() -> "queue.SimpleQueue[str]":
    """Collect the lines of stdin in the background."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in sys.stdin:
            lines.put(line.strip())

    threading.Thread(target=listen, daemon=True).start()
    return lines


def help_out() -> None:
    """Do nothing, stubbornly."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say(f"helper {os.getpid()} is deaf to SIGTERM, in session {os.getsid(0)}")
    time.sleep(STEPS_MAX * STEP_S)


def on_term(_number: int, _frame: FrameType | None) -> None:
    """Go politely, and leave the helper behind: it is somebody else's work to find it."""
    say("told to end: goodbye")
    os._exit(0)


def say(words: str) -> None:
    """Print at once: whoever watches the log should see each step."""
    print(words, flush=True)


if __name__ == "__main__":
    help_out() if "--helper" in sys.argv[1:] else main()
