# ruff: noqa: S603 - a module beside its script; it runs session-mesh, and nothing else
"""The nodes of the tour: three processes, reached through the `session-mesh` command line alone."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import processes
from narration import UnmetError

Answer = TypeVar("Answer")

HERE = Path(__file__).parent  # agents are started here, so `python agent.py` is all it takes
READY_WAIT_S = 20.0
CALL_WAIT_S = 30.0
STOP_WAIT_S = 8.0
LOG_LINES = 12


class CallError(UnmetError):
    """A command ended with an exit code other than 0."""

    def __init__(self, line: str, code: int, said: str) -> None:
        super().__init__(f"`{line}` ended with exit code {code}: {said}")
        self.code = code
        self.said = said


class Node:
    """One node with a home of its own."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.home = directory / name
        self.listen = ""
        self._stderr = directory / f"{name}.stderr"
        self._process: subprocess.Popen[str] | None = None

    def call(self, *words: str, stdin: str = "") -> Any:  # noqa: ANN401 - any JSON
        """Run a session-mesh command and return the JSON it answers; raises CallError."""
        text = self._run([*_with_json(words)], stdin).stdout
        try:
            return json.loads(text)
        except ValueError as error:
            raise UnmetError(f"this is no JSON: {text[:200]!r}") from error

    def shown(self, *words: str) -> str:
        """Run a session-mesh command and return what people see: its notes, then its output."""
        done = self._run([*words], "")
        return done.stderr + done.stdout

    def start(self, *flags: str) -> None:
        """Start the node's process; `await_ready` waits for it."""
        argv = [_executable(), "up", "--listen", "127.0.0.1:0", "-o", "json", *flags]
        with self._stderr.open("ab") as stderr:
            self._process = subprocess.Popen(
                argv,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,  # a Ctrl-C at the tour is for the tour, which then tidies
            )

    def await_ready(self) -> None:
        """Wait for the line that `up` prints when it serves; raises UnmetError."""
        process = self._process
        if process is None or process.stdout is None:
            raise UnmetError(f"{self.name} was not started")
        readable, _, _ = select.select([process.stdout], [], [], READY_WAIT_S)
        line = process.stdout.readline() if readable else ""
        if not line:
            raise UnmetError(f"{self.name} did not come up; see its log below")
        self.listen = json.loads(line)["listen"]

    def stop(self) -> int:
        """End the node as `down` would, its agents live on; returns its exit code.

        Harmless if it does not run.
        """
        return self._end(signal.SIGTERM)

    def crash(self) -> None:
        """End the node as a power cut would."""
        self._end(signal.SIGKILL)

    def last_words(self) -> str:
        """Return the ends of its log and of its stderr."""
        found = []
        for path in (self.home / "node.log", self._stderr):
            with suppress(OSError):
                lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
                found += [f"{self.name} {path.name}: {line}" for line in lines[-LOG_LINES:]]
        return "\n".join(found)

    def _end(self, number: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        return process.returncode

    def _run(self, words: list[str], stdin: str) -> subprocess.CompletedProcess[str]:
        line = " ".join(["session-mesh", *words])
        try:
            done = subprocess.run(
                [_executable(), *words],
                env=self._environment(),
                cwd=HERE,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=CALL_WAIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise UnmetError(f"`{line}` did not end within {CALL_WAIT_S:g} s") from error
        if done.returncode:
            raise CallError(line, done.returncode, _complaint(done))
        return done

    def _environment(self) -> dict[str, str]:
        # What belongs to the mesh of whoever runs the tour has no business in this one.
        mine = ("SESSION_MESH_", "SESSION_API_KEY")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(mine)}
        bin_path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}"
        return kept | {"SESSION_MESH_HOME": str(self.home), "PATH": bin_path}


@contextmanager
def stage(*names: str) -> Iterator[tuple[Path, list[Node]]]:
    """Give a directory and nodes to play with; whatever happens, nothing of them stays."""
    # Not below TMPDIR: Unix sockets want short paths. mkdtemp makes it ours alone.
    directory = Path(tempfile.mkdtemp(prefix="smtour-", dir="/tmp"))
    nodes = [Node(name, directory) for name in names]
    try:
        yield directory, nodes
    finally:
        impatient = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [signal.signal(number, signal.SIG_IGN) for number in impatient]
        in_parallel([node.stop for node in nodes])
        if left := processes.end_all(directory):
            sys.stderr.write(f"these processes could not be ended: {left}\n")
        shutil.rmtree(directory, ignore_errors=True)
        for number, handler in zip(impatient, before, strict=True):
            signal.signal(number, handler)


def in_parallel(calls: Sequence[Callable[[], Answer]]) -> list[Answer]:
    """Make calls side by side: most of them wait for a process. Raises what the first raises."""
    with ThreadPoolExecutor(max_workers=max(len(calls), 1)) as pool:
        return [waiting.result() for waiting in [pool.submit(call) for call in calls]]


def _complaint(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a command complained about, in its own words."""
    text = (done.stderr or done.stdout).strip()
    with suppress(ValueError, LookupError, TypeError):
        text = json.loads(text)["error"]["message"]
    return text[-600:]


def _executable() -> str:
    beside = Path(sys.executable).with_name("session-mesh")
    found = str(beside) if beside.exists() else shutil.which("session-mesh")
    if not found:
        raise SystemExit("session-mesh is not installed here; ./dev demo installs it first")
    return found


def _with_json(words: tuple[str, ...]) -> Iterator[str]:
    """Ask for JSON before a `--`, after which everything belongs to the agent."""
    asked = False
    for word in words:
        if word == "--" and not asked:
            yield from ("-o", "json")
            asked = True
        yield word
    if not asked:
        yield from ("-o", "json")
