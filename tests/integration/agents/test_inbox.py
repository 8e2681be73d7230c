"""Steers on their way into an agent: a real supervisor, its socket, and the node's side of it."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import meshnode
from meshnode.agents import tree
from meshnode.agents.inbox_reader import SupervisorInboxes
from meshnode.agents.processes import ProcessAgents
from meshnode.client.targets.wishes import MESSAGE_BYTES_MAX
from meshnode.core.commands.steers import Instruction
from meshnode.core.errors import MeshError, RefusedError, UnreachableError, UsageError

pytestmark = pytest.mark.integration

ROOT = str(Path(meshnode.__file__).parents[1])
WAIT = "import os, signal\nos.write(1, b'ready\\n')\nwhile True: signal.pause()\n"
DEAF = "import os, signal\nos.close(0)\n" + WAIT
INTERRUPTIBLE = """
import os, signal, sys
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"interrupted\\n"))
os.write(1, b"ready\\n")
for line in sys.stdin:
    os.write(1, line.encode())
"""
UNREAD = """
import os, signal
signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"interrupted\\n"))
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"told to end\\n"))
os.write(1, b"ready\\n")
while True: signal.pause()
"""
WAIT_S = 20.0


class Session:
    """A supervised agent, and a node that follows it."""

    def __init__(
        self, directory: Path, code: str, steer_format: str, interrupt: str, *prefix: str
    ) -> None:
        self.session_id = directory.name
        self.home, self.socket = directory, directory / "s.sock"
        self.inboxes = SupervisorInboxes(lambda _: (self.home, self.socket))
        self.process = subprocess.Popen(
            [
                *prefix,
                *(sys.executable, "-P", "-m", "meshnode.agents.supervise"),
                *("--directory", str(directory), "--socket", str(self.socket)),
                *("--session-id", self.session_id, "--steer-format", steer_format),
                *("--interrupt", interrupt, "--"),
                *(sys.executable, "-I", "-u", "-c", code),
            ],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": ROOT, tree.MARK: self.session_id},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdout.readline() == b"ready\n"
        self.agents = None

    async def follow(self, tasks: asyncio.TaskGroup) -> None:
        nothing = lambda *_: None  # noqa: E731 - said once
        self.agents = ProcessAgents(nothing, nothing, nothing, tasks=tasks, clock=lambda: 5.0)
        await self.agents.attach(self.session_id, self.home, self.socket)

    async def steer(self, message: str, mode: str = ""):
        said = Instruction(message=message, mode=mode)
        return await self.agents.steer(self.session_id, "c1", said)

    async def steer_on(self, message: str) -> None:
        """Steer until it fails."""
        while (await self.steer(message)).on_stdin:
            pass

    async def read(self, after: int | None = None) -> list[str]:
        steers = self.inboxes.read(self.session_id, after, follow=False)
        return [steer.message async for steer in steers]

    def close(self) -> None:
        clock = iter(range(1000)).__next__
        roots = [found for found in [tree.identity_of(self.process.pid)] if found]
        tree.stop_tree(self.session_id, roots, grace_s=0.0, force=True, clock=clock)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def session():
    opened = []
    with tempfile.TemporaryDirectory(prefix="mesh-") as directory:

        def start(
            code: str = WAIT, steer_format: str = "text", interrupt: str = "", *prefix: str
        ) -> Session:
            one = Session(Path(directory), code, steer_format, interrupt, *prefix)
            opened.append(one)
            return one

        yield start
        for one in opened:
            one.close()


async def test_an_agent_without_stdin_lines_is_told_through_its_inbox_alone(session):
    one = session(steer_format="none")
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        await one.follow(tasks)
        landed = await one.steer("x" * 30_000)
        assert (landed.on_stdin, landed.followed) == (False, False)
        for _ in range(20):  # far more than a pipe holds: nothing of it waits for the agent
            await one.steer("y" * 30_000)
        assert len(await one.read()) == 21
        await one.agents.close()


@pytest.mark.parametrize("steer_format", ["text", "json"])
@pytest.mark.parametrize("letter", ["a", "д", "🦊", '"', "\x01", "\udcff"])
async def test_a_steer_of_any_letters_may_have_as_many_bytes_as_is_said(
    session, letter, steer_format
):
    code = "import sys\nprint('ready')\nfor line in sys.stdin.buffer: sys.stdout.buffer.write(line)"
    one = session(code, steer_format)
    message = letter * (MESSAGE_BYTES_MAX // len(letter.encode(errors="surrogatepass")))
    heard = message.encode(errors="replace").decode()
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        await one.follow(tasks)
        for _ in range(3):
            assert (await one.steer(message)).on_stdin
            line = (await asyncio.to_thread(one.process.stdout.readline)).decode()
            assert (json.loads(line)["message"] if steer_format == "json" else line[:-1]) == heard
        assert await one.read() == [heard] * 3
        await one.agents.close()


async def test_a_follower_hears_at_once_and_the_sender_hears_of_the_follower(session):
    one = session()
    heard = asyncio.Queue()

    async def follow() -> None:
        async for steer in one.inboxes.read(one.session_id, None, follow=True):
            heard.put_nowait(steer)

    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        await one.follow(tasks)
        following = tasks.create_task(follow())
        while not (landed := await one.steer("early")).followed:
            assert landed.on_stdin
        await one.steer("on")
        while (steer := await heard.get()).message != "on":
            assert steer.message == "early"
        following.cancel()
        await asyncio.wait({following})
        await one.inboxes.take(one.session_id, steer.position)
        assert await one.read() == []
        while (await one.steer("later")).followed:
            assert one.process.poll() is None, "the supervisor notices that its follower left"
        await one.agents.close()


async def test_a_steer_that_stdin_refuses_is_refused_until_somebody_has_read_the_inbox(session):
    one = session(DEAF)
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        await one.follow(tasks)
        with pytest.raises(RefusedError, match="closed"):
            await one.steer("lost")
        assert await one.read() == [], "a refused steer is nowhere"
        landed = await one.steer("found")
        assert (landed.on_stdin, landed.followed) == (False, False)
        assert await one.read() == ["found"]
        await one.agents.close()


async def test_following_ends_with_the_session(session):
    one = session()
    following = one.inboxes.read(one.session_id, None, follow=True)
    waiting = asyncio.ensure_future(anext(following, None))
    await asyncio.sleep(0)
    async with asyncio.timeout(WAIT_S):
        await asyncio.to_thread(one.close)
        assert await waiting is None


async def test_a_session_without_a_supervisor_and_a_wrong_position_get_a_sentence(session):
    one = session()
    with pytest.raises(UsageError, match="position"):
        await one.inboxes.take(one.session_id, 7)
    await asyncio.to_thread(one.close)
    with pytest.raises(UnreachableError, match="does not answer"):
        await one.read()


async def test_who_is_told_now_is_interrupted_first(session):
    one = session(INTERRUPTIBLE, interrupt="USR1")
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        await one.follow(tasks)
        assert (await one.steer("in passing", "soft")).interrupted == ""
        landed = await one.steer("stop", "now")
        assert (landed.on_stdin, landed.interrupted) == (True, "SIGUSR1")
        said = [await asyncio.to_thread(one.process.stdout.readline) for _ in range(3)]
        assert sorted(said) == [b"in passing\n", b"interrupted\n", b"stop\n"]
        assert said.index(b"in passing\n") < said.index(b"stop\n")
        await one.agents.close()


@pytest.mark.parametrize("closer", ["agent", "caller"])
async def test_who_cannot_be_told_is_not_interrupted_either(session, closer):
    code = f"import os\n{'os.close(0)' * (closer == 'agent')}\n" + UNREAD
    one = session(code, interrupt="USR1")
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        await one.follow(tasks)
        if closer == "caller":
            one.process.stdin.close()
            with pytest.raises(RefusedError, match="the caller's stdin has ended"):
                await one.steer_on("x")  # until the supervisor has seen it
        with pytest.raises(RefusedError, match="stdin is closed"):
            await one.steer("stop", "now")
        assert "stop" not in await one.read(), "what was refused is nowhere"
        one.process.terminate()
        assert await asyncio.to_thread(one.process.stdout.readline) == b"told to end\n"
        await one.agents.close()


async def test_who_was_interrupted_and_takes_no_line_has_not_refused(session):
    one = session(UNREAD, interrupt="USR1")
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        await one.follow(tasks)
        with pytest.raises((RefusedError, UnreachableError)):
            await one.steer_on("x" * 4095)  # with its newline one page: taken whole, or not at all
        with pytest.raises(MeshError, match=r"^it was sent SIGUSR1, and not the message: ") as told:
            await one.steer("stop", "now")
        assert type(told.value) is MeshError
        assert await asyncio.to_thread(one.process.stdout.readline) == b"interrupted\n"
        assert "stop" not in await one.read(), "it is nowhere"
        await one.agents.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_who_has_become_another_user_cannot_be_interrupted_nor_break_its_supervisor(session):
    code = "import os, signal, sys\nos.setuid(65534)\n" + INTERRUPTIBLE
    powerless = ("setpriv", "--bounding-set", "-kill")  # as any user's supervisor is
    one = session(code, "text", "USR1", *powerless)
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        await one.follow(tasks)
        for _ in range(2):
            with pytest.raises(RefusedError, match="another user"):
                await one.steer("stop", "now")
            one.process.terminate()  # is passed on, as far as it may be
        assert await one.read() == [], "what was refused is nowhere"
        assert (await one.steer("go on")).on_stdin
        assert await asyncio.to_thread(one.process.stdout.readline) == b"go on\n"
        await one.agents.close()


async def test_now_is_refused_by_who_can_neither_be_interrupted_nor_hears_it(session):
    one = session()
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        await one.follow(tasks)
        with pytest.raises(RefusedError, match="cannot be interrupted"):
            await one.steer("stop", "now")
        assert await one.read() == [], "what was refused is nowhere"
        following = one.inboxes.read(one.session_id, None, follow=True)
        heard = asyncio.ensure_future(anext(following))
        while True:
            try:
                landed = await one.steer("stop", "now")
                break
            except RefusedError:
                await asyncio.sleep(0)
        assert (landed.followed, landed.interrupted) == (True, "")
        steer = await heard
        assert (steer.message, steer.mode) == ("stop", "now")
        await following.aclose()
        await one.agents.close()


async def test_after_waits_in_the_inbox_of_who_reads_it_and_is_a_line_for_others(session):
    one = session()
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
        await one.follow(tasks)
        landed = await one.steer("first", "after")
        assert landed.on_stdin, "who never asks for its inbox reads the line when it is done"
        assert await one.read() == ["first"]
        landed = await one.steer("second", "after")
        assert (landed.on_stdin, landed.behind) == (False, 1)
        await one.inboxes.take(one.session_id, 2)
        assert (await one.steer("third", "after")).behind == 0
        steers = one.inboxes.read(one.session_id, None, follow=False)
        assert [(steer.message, steer.mode) async for steer in steers] == [("third", "after")]
        await one.agents.close()
