"""How long a forced kill takes against an agent that forks without end, with cgroups and without.

A chain is a process that forks and ends, for ever: nobody keeps its pid for long. `apart` chains
also leave their process group each time.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import Figure, table, wait_until

from meshnode.agents import cgroup, tree

CHAINS = 200
SETTLE_S = 1.0
WITHOUT_GROUPS = (
    "import sys\nfrom meshnode.agents import cgroup, supervise\n"
    "cgroup.create = lambda *_, **__: None\nsys.exit(supervise.main(sys.argv[1:]))"
)


def main() -> None:
    """Measure and print."""
    why = cgroup.why_none()
    figures = []
    for groups in (True, False):
        for apart in (False, True):
            if groups and why:
                continue
            said = f"{'cgroup' if groups else 'walk'}, {'apart' if apart else 'one group'}"
            figures.append(Figure(said, _kill(groups=groups, apart=apart), "s"))
    table(f"A forced kill of {CHAINS} fork chains{why and f' (no cgroups: {why})'}", figures)


def _kill(*, groups: bool, apart: bool) -> float:
    with tempfile.TemporaryDirectory(prefix="kill-") as name:
        directory = Path(name)
        program = ["-m", "meshnode.agents.supervise"] if groups else ["-c", WITHOUT_GROUPS]
        words = ["--directory", name, "--socket", f"{name}/s", "--session-id", directory.name]
        agent = [sys.executable, "-I", "-S", "-c", _code(apart=apart)]
        with subprocess.Popen(
            [sys.executable, "-P", *program, *words, "--detached", "--", *agent],
            env={**os.environ, tree.MARK: directory.name},
        ):
            log = directory / "output.log"
            wait_until(lambda: log.exists() and log.read_bytes())
            time.sleep(SETTLE_S)
            return _told(directory / "s")


def _told(path: Path) -> float:
    with socket.socket(socket.AF_UNIX) as client, client.makefile("rwb") as stream:
        client.connect(str(path))
        began_at_s = time.perf_counter()
        stream.write(b'{"id":1,"op":"kill","force":true}\n')
        stream.flush()
        reply = json.loads(stream.readline())
        took_s = time.perf_counter() - began_at_s
    if reply["survivors"]:
        raise SystemExit(f"survivors: {reply['survivors']}")
    return took_s


def _code(*, apart: bool) -> str:
    leave = "os.setsid() if os.getsid(0) != os.getpid() else None" if apart else "pass"
    return (
        "import os, signal\n"
        f"for _ in range({CHAINS}):\n"
        "    if os.fork() == 0: break\n"
        "else:\n"
        "    os.write(1, b'ready')\n"
        "    while True: signal.pause()\n"
        "while True:\n"
        f"    {leave}\n"
        "    if os.fork(): os._exit(0)\n"
    )


if __name__ == "__main__":
    main()
