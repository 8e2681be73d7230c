"""Who has which log session, by what programs like the real ones leave while they run."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from meshnode.agents import log_sessions, tree
from meshnode.agents.log_sessions import LogSessions

pytestmark = pytest.mark.integration
PROGRAMS = Path(__file__).parents[2] / "programs"
OURS, OTHERS, FOREIGN = "a" * 26, "b" * 26, "c" * 26


class Programs:
    """Programs started inside sessions, or outside of any; and who looks at them."""

    def __init__(self, root: Path) -> None:
        self.claude, self.locks = root / "sessions", root / "thread-writer-locks"
        self.root = root
        self.running: list[subprocess.Popen] = []
        self.looking = self.looker({})

    def looker(self, known):
        return LogSessions([self.claude], [self.locks], {OURS, OTHERS}.__contains__, known)

    def start(self, session, *words, program="claude_like.py", **more):
        """Start one; return it with the name of its log session, once it has answered."""
        return self.run(session, str(PROGRAMS / program), "m", *words, **more)

    def run(self, session, *words, **more):
        """Start a Python program; return it with the first word that it answers."""
        environment = {"PATH": os.environ["PATH"], "CLAUDE_CONFIG_DIR": str(self.root), **more}
        environment |= {"CODEX_HOME": str(self.root)} | ({tree.MARK: session} if session else {})
        process = subprocess.Popen(
            [sys.executable, "-u", *words],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.running.append(process)
        return process, self.prompt(process)

    def look_anew(self, found):
        """Let somebody else look from now on, who knows what was had."""
        known = {(one.source, one.name): (OURS, one.since_s) for one in found}
        self.looking = self.looker(known)

    def file_of(self, process):
        return self.claude / f"{process.pid}.json"

    def say(self, process, name):
        """Let a program go on with another log session, as after `/resume`."""
        file = self.file_of(process)
        ticks = str(tree.identity_of(process.pid).start_ticks)
        said = {"pid": process.pid, "sessionId": name, "procStart": ticks}
        file.write_text(json.dumps(said))

    @staticmethod
    def prompt(process, text="go on"):
        process.stdin.write(f"{text}\n")
        process.stdin.flush()
        return process.stdout.readline().split()[0]

    @staticmethod
    def end(process):
        process.stdin.close()
        process.wait()

    def look(self):
        """Return what has changed: for whom, which name, and whether it is had."""
        found = self.looking.look(time.time())
        return [(session, one.name, one.until_s == math.inf) for session, one in found]


@pytest.fixture
def programs(tmp_path):
    programs = Programs(tmp_path)
    yield programs
    for process in programs.running:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.mark.parametrize("program", ["claude_like.py", "codex_like.py"])
def test_a_log_session_is_had_from_the_start_of_its_program_until_its_end(programs, program):
    before_s = time.time()
    process, name = programs.start(OURS, program=program)
    ((session, had),) = programs.looking.look(time.time())
    assert (session, had.source, had.name) == (OURS, program.partition("_")[0], name)
    assert before_s - 0.02 <= had.since_s <= time.time(), "a clock tick is 10 ms"
    assert programs.look() == []
    programs.end(process)
    assert programs.look() == [(OURS, name, False)]
    assert programs.look() == []


@pytest.mark.parametrize("program", ["claude_like.py", "codex_like.py"])
@pytest.mark.parametrize("session", ["", FOREIGN])
def test_what_runs_in_no_session_of_ours_is_nobodys(programs, session, program):
    programs.start(session, program=program)
    assert programs.look() == []


def test_who_clears_goes_on_with_another_from_then_on(programs):
    process, name = programs.start(OURS)
    assert programs.look() == [(OURS, name, True)]
    process.stdin.write("/clear\n")
    other, now_s = programs.prompt(process), time.time()
    (said_in,) = programs.claude.iterdir()
    gone, new = programs.looking.look(now_s)
    assert (gone[1].name, gone[1].until_s) == (name, now_s)
    assert (new[1].name, new[1].since_s) == (other, said_in.stat().st_mtime)


def test_what_two_have_at_once_is_nobodys_until_one_has_ended(programs):
    first, name = programs.start(OURS)
    assert programs.look() == [(OURS, name, True)]
    second, _ = programs.start("", "--resume", name)
    assert programs.look() == [(OURS, name, False)]
    programs.end(first)
    assert programs.look() == []
    programs.end(second)
    programs.start(OTHERS, "--resume", name)
    assert programs.look() == [(OTHERS, name, True)]


def test_several_processes_of_one_session_have_it_together(programs):
    _, name = programs.start(OURS)
    programs.start(OURS, "--resume", name)
    assert programs.look() == [(OURS, name, True)]


def test_who_resumes_what_a_killed_program_left_is_told_apart_from_it(programs):
    first, name = programs.start(OURS)
    assert programs.look() == [(OURS, name, True)]
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert len(list(programs.claude.iterdir())) == 1, "it has left what it said of itself"
    programs.start(OTHERS, "--resume", name)
    assert programs.look() == [(OURS, name, False), (OTHERS, name, True)]


def test_a_pid_that_came_back_names_nobody(programs):
    _, name = programs.start(OURS)
    (said_in,) = programs.claude.iterdir()
    said = json.loads(said_in.read_text())
    said_in.write_text(json.dumps(said | {"procStart": str(int(said["procStart"]) - 1)}))
    assert programs.look() == []
    said_in.write_text(json.dumps(said))
    assert programs.look() == [(OURS, name, True)]


@pytest.mark.parametrize(
    "said",
    [
        "",
        "[]",
        "{",
        "[" * 60_000,
        '{"pid": 1}',
        "9" * 10_000,
        '{"sessionId": 7, "pid": "x", "procStart": []}',
        '{"sessionId": "x", "pid": 1e999, "procStart": "1"}',
        '{"sessionId": "x", "pid": -1, "procStart": NaN}',
    ],
)
def test_what_cannot_be_read_is_passed_over(programs, said):
    programs.claude.mkdir()
    (programs.claude / "1.json").write_text(said)
    assert programs.look() == []


@pytest.mark.parametrize("name", ["\\ud800", "", "n" * 129])
def test_a_name_that_cannot_be_kept_is_passed_over(programs, name):
    programs.start(OURS)
    (said_in,) = programs.claude.iterdir()
    said = json.loads(said_in.read_text())
    said_in.write_text(json.dumps(said | {"sessionId": "NAME"}).replace("NAME", name))
    assert programs.look() == []


def test_a_lock_whose_name_is_no_text_is_passed_over(programs):
    programs.locks.mkdir()
    path = os.fsencode(programs.locks) + b"/\xff.lock"
    held = "import fcntl,sys; f=open(sys.argv[1],'w'); fcntl.flock(f,2); print('held'); input()"
    programs.run(OURS, "-c", held, path)
    assert programs.look() == []


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to(path)])
def test_what_is_no_file_is_passed_over_at_once(programs, make):
    programs.claude.mkdir()
    make(programs.claude / "1.json")
    assert programs.look() == []


def test_one_process_has_one_log_session_whatever_else_it_says(programs):
    process, name = programs.start(OURS)
    said_in = programs.file_of(process)
    said = json.loads(said_in.read_text())
    for file in ("1.json", f"0{process.pid}.json", "x.json"):
        (programs.claude / file).write_text(json.dumps(said | {"sessionId": file}))
    assert programs.look() == [(OURS, name, True)]
    elsewhere = programs.root / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / said_in.name).write_text(json.dumps(said | {"sessionId": "later"}))
    os.utime(elsewhere / said_in.name, (time.time() + 1,) * 2)
    both = [programs.claude, elsewhere]
    for directories in (both, both[::-1]):
        programs.looking = LogSessions(directories, [], {OURS}.__contains__, {})
        assert programs.look() == [(OURS, "later", True)]


def test_files_of_other_names_hide_nobody(programs, monkeypatch):
    _, name = programs.start(OURS)
    for number in range(50):
        (programs.claude / f"x{number}.json").touch()
    monkeypatch.setattr(log_sessions, "FILES_MAX", 1)
    assert programs.look() == [(OURS, name, True)]


def test_a_daemon_that_all_terminals_share_is_nobodys(programs):
    programs.start(OURS, "app-server", "--listen", "unix://", program="codex_like.py")
    assert programs.look() == []


def test_a_lock_is_had_by_whatever_path_its_program_has_come(programs):
    link = programs.root / "link"
    link.symlink_to(programs.root)
    _, name = programs.start(OURS, program="codex_like.py")
    programs.looking = LogSessions([], [link / programs.locks.name], {OURS}.__contains__, {})
    assert programs.look() == [(OURS, name, True)]


def test_a_lock_that_nobody_holds_is_nobodys(programs):
    programs.locks.mkdir()
    (programs.locks / "left.lock").touch()
    assert programs.look() == []


def test_who_looks_again_after_a_while_knows_what_goes_on_and_not_when_else_ended(programs):
    first, name = programs.start(OURS)
    second, other = programs.start(OURS)
    found = {one.name: one for _, one in programs.looking.look(time.time())}
    programs.end(second)
    programs.look_anew(found.values())
    (said_in,) = programs.claude.iterdir()
    *gone, anew = [one for _, one in programs.looking.look(time.time())]
    assert {(one.name, one.until_s) for one in gone} == {
        (name, found[name].since_s),
        (other, found[other].since_s),
    }
    assert (anew.name, anew.since_s) == (name, said_in.stat().st_mtime)
    programs.end(first)
    ((_, ended),) = programs.looking.look(now_s := time.time())
    assert (ended.name, ended.since_s, ended.until_s) == (name, anew.since_s, now_s)


def test_what_was_resumed_while_nobody_looked_is_had_from_then(programs):
    first, name = programs.start(OURS)
    found = [one for _, one in programs.looking.look(time.time())]
    programs.end(first)
    made_s = outside(programs, "--resume", name)
    programs.start(OURS, "--resume", name)
    programs.look_anew(found)
    gone, anew = [one for _, one in programs.looking.look(time.time())]
    assert (gone.name, gone.until_s) == (name, gone.since_s)
    assert anew.name == name
    assert anew.since_s > made_s


def test_what_an_older_process_took_up_while_nobody_looked_is_had_from_then(programs):
    process, _ = programs.start(OURS)
    found = [one for _, one in programs.looking.look(time.time())]
    made_s = outside(programs, "--resume", "taken")
    programs.say(process, "taken")
    programs.look_anew(found)
    _, taken = [one for _, one in programs.looking.look(time.time())]
    assert taken.name == "taken"
    assert taken.since_s > made_s


def test_what_is_taken_up_by_who_could_not_be_read_once_is_had_from_then(programs):
    process, name = programs.start(OURS)
    assert programs.look() == [(OURS, name, True)]
    made_s = outside(programs, "--resume", "taken")
    programs.file_of(process).write_text("")
    assert programs.look() == [(OURS, name, False)]
    programs.say(process, "taken")
    ((_, taken),) = programs.looking.look(time.time())
    assert taken.name == "taken"
    assert taken.since_s > made_s


def test_a_lock_that_was_left_is_had_from_when_it_was_seen(programs):
    """Its file may be older than who has it now, who may have begun long before."""
    first, name = programs.start(OURS, program="codex_like.py")
    (lock,) = programs.locks.iterdir()
    os.utime(lock, (1, 1))
    ((_, had),) = programs.looking.look(now_s := time.time())
    assert (had.name, had.since_s) == (name, now_s)
    programs.end(first)


def outside(programs, *words):
    """Let a program make a response in no session of ours; return when, at the earliest."""
    process, _ = programs.start("", *words)
    made_s = time.time()
    programs.prompt(process)
    programs.end(process)
    return made_s
