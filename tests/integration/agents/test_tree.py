import os
import signal
import subprocess
import sys
import time

import pytest

from meshnode.agents import tree

pytestmark = pytest.mark.integration

STUBBORN = "import os, signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
READY = "os.write(1, b'%d\\n' % os.getpid()); signal.pause()\n"


@pytest.fixture
def start():
    started = []

    def run(code, *arguments, session_id=None):
        mark = {tree.MARK: session_id} if session_id else {}
        process = subprocess.Popen(  # our own code
            [sys.executable, "-I", "-c", code, *arguments],
            stdout=subprocess.PIPE,
            env={"PATH": os.environ["PATH"], **mark},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def pids(process, count):
    return [int(process.stdout.readline()) for _ in range(count)]


def stop(session_id, roots=(), *, grace_s=5.0, force=False):
    clock = time.monotonic  # the processes are real, and so is their time
    return tree.stop_tree(session_id, roots, grace_s=grace_s, force=force, clock=clock)


def test_a_willing_tree_ends_on_term(start):
    process = start("import os, signal\n" + READY, session_id="t1")
    pids(process, 1)
    assert stop("t1", grace_s=60.0) == tree.Killing(1, 1, ())
    assert process.wait() == -signal.SIGTERM


def test_a_stubborn_tree_that_scattered_itself_is_killed_whole(start):
    code = (
        STUBBORN
        + "if os.fork() == 0:\n"
        + "    os.setsid()\n"
        + "    if os.fork() == 0: pass\n"
        + "    else: os._exit(0)\n"
        + "else: os.wait()\n"
        + READY
    )
    process = start(code, session_id="t2")
    found = pids(process, 2)
    assert stop("t2", grace_s=0.05) == tree.Killing(2, 2, ())
    assert all(tree.identity_of(pid) is None for pid in found)


def test_a_stopped_process_hears_the_term_within_its_grace(start):
    process = start("import os, signal\n" + READY, session_id="t3")
    (pid,) = pids(process, 1)
    os.kill(pid, signal.SIGSTOP)
    assert stop("t3", grace_s=60.0).gone == 1
    assert process.wait() == -signal.SIGTERM


def test_descendants_of_a_root_are_found_without_the_mark(start):
    code = "import os, signal\nos.fork()\n" + READY
    process = start(code)
    pids(process, 2)
    root = tree.identity_of(process.pid)
    assert len(tree.members("t4", [root])) == 2
    assert stop("t4", [root], force=True) == tree.Killing(2, 2, ())


def test_a_stranger_with_the_pid_of_a_dead_root_is_left_alone(start):
    process = start("import os, signal\n" + READY)
    pids(process, 1)
    former = tree.Identity(process.pid, tree.identity_of(process.pid).start_ticks - 1)
    assert stop("t5", [former], force=True) == tree.Killing(0, 0, ())
    assert not tree.send(former, signal.SIGKILL)
    assert process.poll() is None


def test_a_mark_that_only_begins_alike_is_another_session(start):
    pids(start("import os, signal\n" + READY, session_id="t6-longer"), 1)
    assert tree.members("t6") == frozenset()


def test_the_caller_and_its_ancestors_are_never_in_the_tree():
    roots = [tree.identity_of(os.getpid()), tree.identity_of(os.getppid())]
    found = {one.pid for one in tree.members("t7", roots[:1])}
    assert os.getpid() not in found
    assert os.getppid() not in {one.pid for one in tree.members("t7", roots)}


def test_a_supervisor_that_is_spared_keeps_its_tree_and_no_other_word_spares(start):
    command = [sys.executable, "-I", "-c", "import os, signal\nos.fork()\n" + READY]
    command += ["-m", "meshnode.agents.supervise", "--detached", "--session-id", "t8-inner", "--"]
    outer = (
        f"import os, signal, subprocess\nsubprocess.Popen({command!r}, "
        f"env={{'{tree.MARK}': 't8-inner'}})\n"
    ) + READY
    process = start(outer, session_id="t8")
    others = set(pids(process, 3)) - {process.pid}
    try:
        root, inner = tree.identity_of(process.pid), tree.identity_of(min(others))
        assert {one.pid for one in tree.members("t8", [root])} == others | {process.pid}
        spared = tree.Reach(spared=frozenset({inner}))
        assert tree.members("t8", [root], spared) == {root}
        assert {one.pid for one in tree.members("t8-inner")} == others
    finally:
        stop("t8-inner", force=True)


def test_a_zombie_counts_as_gone(start):
    process = start("pass")
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert tree.identity_of(process.pid) is None
