"""The command line without its start: a process that has loaded all of it forks for each call.

Starting Python and importing is most of what a call takes. Invariant: a fork runs
`session_mesh.main.main` on words, streams, directory, umask, network and a few variables of its
own, and ends as an interpreter does, but that it gives back no memory. It shares with other calls
only what is the same in all of them. Who asks from another environment than this process has begun
in gets None, and starts the program itself.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple, NoReturn

OURS = (  # variables that a verb reads and no import does
    *("SESSION_MESH_HOME", "SESSION_API_KEY"),
    *("SESSION_MESH_INVITE", "SESSION_MESH_ROOT_PASSPHRASE"),
)
REQUEST_BYTES_MAX = 64 << 10  # more, or more to read on stdin: the program itself
FDS_MAX = 1024
NETWORK = Path("/proc/thread-self/ns/net")
CLONE_NEWNET = 0x40000000  # sched.h
ALL_OF = ("session_mesh", "meshnode.client", "meshnode.node", "meshnode.rpc")
ALONE = ("__main__", "becoming")  # modules that are programs
libc = ctypes.CDLL(None, use_errno=True)


class Done(NamedTuple):
    """What one call gave."""

    code: int
    out: str
    err: str


# In the process that loads and forks.


def load() -> None:
    """Import what any verb may, and begin no thread: a fork would not have it."""
    for name in ALL_OF:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not module.name.endswith(ALONE):
                importlib.import_module(module.name)
    if len(list(Path("/proc/self/task").iterdir())) != 1:
        raise AssertionError("a thread has begun")
    gc.collect()
    gc.freeze()


def serve(gate: socket.socket) -> None:
    """Fork for each request until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    running: dict[int, tuple[int, int]] = {}  # by what tells of its end: a process, whom to tell
    gate.send(b"ready")
    while True:
        ready, _, _ = select.select([gate.fileno(), *running], [], [])
        for ended in running.keys() & ready:
            pid, told = running.pop(ended)
            _, status = os.waitpid(pid, 0)
            with suppress(BrokenPipeError):  # who asked has lost patience
                os.write(told, b" %d" % os.waitstatus_to_exitcode(status))
            os.close(told)
            os.close(ended)
        if gate.fileno() not in ready:
            continue
        request, fds, _, _ = socket.recv_fds(gate, REQUEST_BYTES_MAX * 2, 5)
        if not request:
            return
        *given, told = fds
        pid = os.fork()
        if pid == 0:
            gate.detach()
            become(json.loads(request), given)
            run()
        for fd in given:
            os.close(fd)
        os.write(told, b"%d" % pid)
        running[os.pidfd_open(pid)] = (pid, told)


def become(request: dict, given: list[int]) -> None:
    """Make a fork what a started program is."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    network, *streams = given
    if os.fstat(network).st_ino != NETWORK.stat().st_ino and libc.setns(network, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, FDS_MAX)
    os.chdir(request["directory"])
    os.umask(request["umask"])
    os.environ.update(request["ours"])
    sys.argv = request["argv"]


def run() -> NoReturn:
    """Do what the installed program does, and end."""
    code = importlib.import_module("session_mesh.main").main()
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


# In the process that tests.


class Preloaded:
    """Such a process, from the first call on."""

    def __init__(self, environment: dict[str, str]) -> None:
        self._within = _within(environment)
        self._gate, gate = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with gate:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__, str(gate.fileno())],
                env=environment,
                stdin=subprocess.PIPE,  # as the streams of each call are
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[gate.fileno()],
            )
        if self._gate.recv(16) != b"ready":
            raise AssertionError(self._process.communicate()[1].decode())
        atexit.register(self.close)

    def close(self) -> None:
        self._gate.close()
        self._process.communicate()

    def suits(self, argv: list[str], environment: dict[str, str], stdin: str) -> bool:
        """Whether a fork would be what a started program is."""
        small = max(len(stdin.encode()), len(json.dumps(argv))) < REQUEST_BYTES_MAX // 2
        return small and _within(environment) == self._within

    def call(
        self, argv: list[str], environment: dict[str, str], stdin: str, timeout_s: float
    ) -> Done:
        """Run one call; raises TimeoutExpired, having killed it."""
        ours = {k: v for k, v in environment.items() if k in OURS}
        request = {"argv": argv, "directory": str(Path.cwd()), "ours": ours, "umask": _umask()}
        with ExitStack() as stack:
            (read, write), *answers = [os.pipe() for _ in range(4)]
            os.write(write, stdin.encode())
            os.close(write)
            theirs = [read, *(write for _, write in answers)]
            read_ends = [stack.enter_context(os.fdopen(fd, "rb", 0)) for fd, _ in answers]
            theirs.insert(0, os.open(NETWORK, os.O_RDONLY))
            socket.send_fds(self._gate, [json.dumps(request).encode()], theirs)
            for fd in theirs:
                os.close(fd)
            out, err, told = _read_all([end.fileno() for end in read_ends], timeout_s, argv)
        return Done(int(told.split()[1]), _text(out), _text(err))


def _within(environment: dict[str, str]) -> tuple[object, ...]:
    """Return what a process begins in that a fork cannot change, or that imports may have read."""
    told = {k: v for k, v in environment.items() if k not in OURS and not k.startswith("PYTEST_")}
    return told, tuple(NETWORK.with_name(name).readlink() for name in ("mnt", "user"))


def _umask() -> int:
    """Return it without setting it: other threads make files meanwhile."""
    told = Path("/proc/self/status").read_text()
    return int(told.partition("Umask:")[2].split(maxsplit=1)[0], 8)


def _read_all(fds: list[int], timeout_s: float, argv: list[str]) -> list[bytes]:
    held = dict.fromkeys(fds, b"")
    still, until_s = set(fds), time.monotonic() + timeout_s
    while still:
        ready, _, _ = select.select(still, [], [], max(0.0, until_s - time.monotonic()))
        if not ready:
            os.kill(int(held[fds[-1]].split()[0]), signal.SIGKILL)
            raise subprocess.TimeoutExpired(argv, timeout_s)
        for fd in ready:
            part = os.read(fd, 1 << 16)
            held[fd] += part
            if not part:
                still.remove(fd)
    return list(held.values())


def _text(said: bytes) -> str:
    return said.decode().replace("\r\n", "\n").replace("\r", "\n")  # as subprocess does


_beginning = threading.Lock()


@cache
def _preloaded(_pid: int) -> Preloaded:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("SESSION_")}
    return Preloaded(kept | {"NO_COLOR": "1"})


def begin() -> Preloaded:
    """Begin the process, unless it has begun: where the caller is, and not on a host of a test."""
    with _beginning:
        return _preloaded(os.getpid())


def called(
    argv: list[str], environment: dict[str, str], stdin: str, timeout_s: float
) -> Done | None:
    """Call a fork; None where only the program itself will do."""
    preloaded = begin()
    if not preloaded.suits(argv, environment, stdin):
        return None
    return preloaded.call(argv, environment, stdin, timeout_s)


if __name__ == "__main__":
    load()
    serve(socket.socket(fileno=int(sys.argv[1])))
