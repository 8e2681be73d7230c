"""What orphans come to, as PID 1 of a container is: `prctl` makes any process that, for good."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from integration.attacks.supervised import until

import meshnode
from meshnode.agents.signals import NOTED

pytestmark = pytest.mark.integration

ROOT = str(Path(meshnode.__file__).parents[1])
ADOPT = "import ctypes\nctypes.CDLL(None).prctl(36, 1, 0, 0, 0)\n"
BECOME = (
    "import os, sys\nfrom meshnode.node.init import become\n"
    "argv = [sys.executable, '-I', '-S', '-u', '-c', sys.argv[1]]\n"
    "become(argv, dict(os.environ), [*map(int, sys.argv[2:])])\n"
)
LATE = "import os, signal, sys\n"
COUNTS = LATE + (  # how often it hears INT, until TERM
    "heard = []\nsignal.signal(2, lambda *_: heard.append(2) or print('int', flush=True))\n"
    "signal.signal(15, lambda *_: sys.exit(len(heard)))\nprint('ready')\n"
    "while True: signal.pause()\n"
)
WAITS = LATE + (
    "awaited = {signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1}\n"
    "signal.pthread_sigmask(signal.SIG_BLOCK, awaited)\nprint('ready', flush=True)\n"
    "while (one := signal.sigwait(awaited)) != signal.SIGQUIT: print(one.name, flush=True)\n"
    "sys.exit(5)\n"
)
STOPPABLE = LATE + "print('ready')\nsys.stdin.readline()\nsys.exit(7)\n"
SHELL = (  # a session's leader, with a terminal and one job in its foreground, as a shell has
    "import os, signal, sys\n"
    "signal.signal(signal.SIGTTOU, signal.SIG_IGN)\n"
    "job = os.fork()\n"
    "if job == 0:\n"
    "    os.setpgid(0, 0)\n"
    "    os.tcsetpgrp(0, os.getpid())\n"
    "    signal.signal(signal.SIGTTOU, signal.SIG_DFL)\n"
    "    os.execv(sys.executable, [sys.executable, '-P', '-c', *sys.argv[1:]])\n"
    "while True:\n"
    "    _, status = os.waitpid(job, os.WUNTRACED)\n"
    "    if not os.WIFSTOPPED(status): break\n"
    "    os.tcsetpgrp(0, os.getpgrp())\n"
    "    print('stopped', flush=True)\n"
    "    sys.stdin.readline()\n"
    "    os.tcsetpgrp(0, job)\n"
    "    os.killpg(job, signal.SIGCONT)\n"
    "os.tcsetpgrp(0, os.getpgrp())\n"
    "print('ended', os.waitstatus_to_exitcode(status), flush=True)\n"
)


def words(code, first=ADOPT, heeded=NOTED):
    return [sys.executable, "-P", "-c", first + BECOME, code, *(f"{one:d}" for one in heeded)]


@pytest.fixture
def begin():
    """Start what becomes a program, and is an init for it if it adopts orphans."""
    begun = []

    def start(code, first=ADOPT, heeded=NOTED, **options):
        one = subprocess.Popen(
            words(code, first, heeded),
            env=os.environ | {"PYTHONPATH": ROOT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        )
        begun.append(one)
        return one

    yield start
    for one in begun:
        one.kill()
        one.communicate()


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_where_orphans_go_elsewhere_the_program_has_the_pid(begin):
    code = "import os\nprint(os.getpid(), flush=True)\nos.kill(os.getpid(), 9)\n"
    one = begin(code, first="")
    assert int(one.stdout.readline()) == one.pid
    assert one.wait() == -signal.SIGKILL


@pytest.mark.parametrize(
    ("end", "code"),
    [("sys.exit(7)", 7), ("os.kill(os.getpid(), 15)", -15), ("os.kill(os.getpid(), 9)", -9)],
)
def test_it_ends_as_its_child_has_ended(begin, end, code):
    one = begin(LATE + "print(os.getppid())\n" + end)
    assert int(one.stdout.readline()) == one.pid
    assert one.wait() == code


def test_it_ends_with_its_child_though_its_caller_ignores_who_ends(begin):
    ignores = "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    one = begin(LATE + "sys.stdin.readline()\nsys.exit(7)\n", first=ADOPT + ignores)
    one.communicate("\n", timeout=60)
    assert one.returncode == 7


def test_an_orphan_that_ends_is_collected(begin):
    ended = "    if orphan := os.fork(): print(orphan)\n    os._exit(0)\n"
    one = begin(LATE + "if os.fork() == 0:\n" + ended + "sys.stdin.readline()\n")
    orphan = one.stdout.readline().strip()
    until(lambda: not Path("/proc", orphan).exists())
    assert len(children(one.pid)) == 1
    one.communicate("\n")
    assert one.returncode == 0


def test_signals_to_it_are_its_childs(begin):
    one = begin(COUNTS)
    assert one.stdout.readline() == "ready\n"
    for _ in range(2):
        one.send_signal(signal.SIGINT)
        assert one.stdout.readline() == "int\n"
    one.terminate()
    assert one.wait() == 2


def test_what_its_child_does_not_heed_is_not_passed_on(begin):
    one = begin(COUNTS, heeded=[signal.SIGINT, signal.SIGTERM])
    assert one.stdout.readline() == "ready\n"
    for number in (signal.SIGUSR1, signal.SIGPWR, signal.SIGRTMIN + 3):
        one.send_signal(number)
    one.send_signal(signal.SIGINT)
    assert one.stdout.readline() == "int\n"
    for number in (signal.SIGUSR1, signal.SIGPWR, signal.SIGRTMIN + 3):
        one.send_signal(number)
    one.terminate()
    assert one.wait() == 1


def test_what_it_was_given_to_read_or_write_is_its_childs_alone(begin):
    read, write = os.pipe()
    one = begin(f"import os, sys\nos.close({write})\nsys.stdin.readline()\n", pass_fds=[write])
    os.close(write)
    assert os.read(read, 1) == b"", "nobody else holds it open"
    os.close(read)
    assert one.poll() is None


def test_it_needs_no_proc(begin):
    hides = (  # CLONE_NEWUSER, CLONE_NEWNS
        "import ctypes\nc = ctypes.CDLL(None)\n"
        "if c.unshare(0x10020000) or c.mount(b'none', b'/proc', b'tmpfs', 0, None):\n"
        "    print('not permitted', flush=True)\n"
    )
    code = "import os, sys\nprint(os.listdir('/proc'))\nsys.stdin.readline()\nsys.exit(7)\n"
    one = begin(code, first=ADOPT + hides)
    if (said := one.stdout.readline()) == "not permitted\n":
        pytest.skip("another namespace of mounts is not permitted here")
    assert said == "[]\n"
    one.communicate("\n")
    assert one.returncode == 7


def test_its_environment_says_neither_whose_it_is_nor_what_it_may(begin, monkeypatch):
    monkeypatch.setenv("SESSION_MESH_SESSION_ID", "one")
    one = begin(LATE + "print(os.environ['SESSION_MESH_SESSION_ID'])\nsys.stdin.readline()\n")
    assert one.stdout.readline() == "one\n"
    assert b"SESSION_MESH_" not in Path(f"/proc/{one.pid}/environ").read_bytes()
    assert b"PATH=" in Path(f"/proc/{one.pid}/environ").read_bytes()


class Screen:
    """A terminal, and at it what adopts orphans, or a shell of which that is a job."""

    def __init__(self, code, *, shell=False, first=ADOPT):
        self.pid, self.master = os.forkpty()
        if self.pid == 0:
            os.environ["PYTHONPATH"] = ROOT
            program = ["-c", SHELL, *words(code)[3:]] if shell else words(code, first)[1:]
            os.execv(sys.executable, [sys.executable, *program])
        self.said = b""

    def type(self, keys):
        os.write(self.master, keys)

    def until(self, said):
        while said not in self.said:
            self.said += os.read(self.master, 4096)
        before, _, self.said = self.said.partition(said)
        return before


@pytest.fixture
def screen():
    shown = []

    def show(code, **options):
        shown.append(Screen(code, **options))
        return shown[-1]

    yield show
    for one in shown:
        os.close(one.master)  # who is at it is hung up on
        os.waitpid(one.pid, 0)


def test_a_key_of_the_terminal_reaches_the_child_once(screen):
    one = screen(WAITS)
    one.until(b"ready\r\n")
    os.kill(one.pid, signal.SIGSTOP)
    os.waitpid(one.pid, os.WUNTRACED)
    one.type(b"\x03")
    one.until(b"SIGINT\r\n")  # by itself: nobody passes on anything now
    os.kill(one.pid, signal.SIGUSR1)
    os.kill(one.pid, signal.SIGCONT)
    assert b"SIGINT" not in one.until(b"SIGUSR1\r\n"), "which is heard behind the key by all"
    one.type(b"\x1c")


def test_a_key_that_comes_just_before_there_is_a_child_is_its_own(screen):
    waits = (
        "import signal, sys\nsignal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\n"
        "print('waits', flush=True)\nsys.stdin.readline()\n"
    )
    one = screen(WAITS, first=ADOPT + waits)
    one.until(b"waits\r\n")
    one.type(b"\x03\n")
    one.until(b"ready\r\n")
    os.kill(one.pid, signal.SIGUSR1)
    assert b"SIGINT" in one.until(b"SIGUSR1\r\n")
    one.type(b"\x1c")


def test_what_is_stopped_at_a_terminal_can_be_continued_there(screen):
    one = screen(STOPPABLE, shell=True)
    one.until(b"ready")
    one.type(b"\x1a")
    one.until(b"stopped")
    one.type(b"fg\n")
    one.type(b"on\n")
    one.until(b"ended 7")
