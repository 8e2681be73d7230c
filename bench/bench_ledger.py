"""What reading usage logs costs, as whole processes: `session-mesh usage` beside ccusage.

`bench_ledger.py [RESPONSES [LINES]]`: 30,286 responses in 200 MB of transcripts of Claude Code, and
100,000 lines of a Higress log, unless told otherwise. ccusage is installed for it if npm is there;
the processes take turns, so that whatever else the machine does befalls all of them. The limits
were set in an hour in which ccusage took 0.51 s: each is held against what it takes now, too.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import ccusage
import psutil
from report import PROGRAM, Figure, table
from transcripts import write

ROUNDS = 5
LOOK_S = 0.01  # at how much memory it has
COLD_S, COLD_MIB = 0.8, 80.0
CCUSAGE_S = 0.51  # in the hour of the limits
WARM_S = 0.05  # of work, beyond what starting takes
HIGRESS_S = 1.0  # 100,000 lines
RESPONSES, LINES = 30_286, 100_000


@dataclass(frozen=True)
class Cost:
    """What a process took: until it ended, on all processors, and at its largest.

    The largest is of one process; `_largest_mib` tells of it with those that it starts.
    """

    wall_s: float
    cpu_s: float
    peak_mib: float
    said: bytes


def main(responses: int = RESPONSES, lines: int = LINES) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        ccusage_s = claude(directory, responses)
        pace = ccusage_s / CCUSAGE_S if ccusage_s and responses == RESPONSES else None
        higress(directory, lines, pace)


def claude(directory: Path, responses: int) -> float | None:
    """Transcripts: ours cold, ours with nothing new, and ccusage, on two threads and on one.

    Returns how long ccusage took, if it is there.
    """
    root = directory / "claude"
    written = write(root, Random(1), responses, text_chars=1250)
    cold: list[Cost] = []
    warm: list[Cost] = []
    plain: list[Cost] = []
    idle: list[Cost] = []
    theirs: list[Cost] = []
    alone: list[Cost] = []
    program = ccusage.install(directory / "ccusage")
    for _ in range(ROUNDS):
        home = directory / "home"
        cold.append(_ours(home, "claude", root))
        warm.append(_ours(home, "claude", root))
        plain.append(_plain(home, root))
        idle.append(_run([str(PROGRAM), "--help"], dict(os.environ)))
        shutil.rmtree(home)
        if isinstance(program, Path):
            theirs.append(_run(*ccusage.command_of(program, root)))
            alone.append(_run(*ccusage.command_of(program, root, "--single-thread")))
    if json.loads(cold[0].said)["records"] != len(written.usage):
        raise SystemExit("not all responses were counted")
    is_limited = responses == RESPONSES
    limits = (COLD_S, COLD_MIB) if is_limited else (None, None)
    work_s, plain_s = (_median_s(some) - _median_s(idle) for some in (warm, plain))
    table(
        f"{written.size / 1e6:.0f} MB of transcripts: {written.lines:,} lines, "
        f"{len(written.usage):,} responses, {written.files:,} files; median of {ROUNDS}",
        [
            *_figures("usage, all of it new, kept and priced", cold, *limits),
            Figure("  both its processes, shared pages once", _largest_mib(root, directory), "MiB"),
            *_figures("usage, nothing new", warm),
            *_figures("usage without --source and --path, nothing new", plain),
            Figure("session-mesh --help, which reads nothing", _median_s(idle), "s"),
            Figure("  nothing new beyond it", work_s, "s", WARM_S if is_limited else None),
            Figure("  without --source and --path", plain_s, "s", WARM_S if is_limited else None),
            *(_figures(f"ccusage {ccusage.VERSION}", theirs) if theirs else []),
            *(_figures("ccusage on one thread", alone) if alone else []),
            *(
                _ratios((cold, work_s, plain_s), _median_s(theirs), is_limited=is_limited)
                if theirs
                else []
            ),
        ],
    )
    if isinstance(program, str):
        print(f"  ccusage is left out: {program}")
    return _median_s(theirs) if theirs else None


def higress(directory: Path, lines: int, pace: float | None) -> None:
    """An access log: ours cold, and with nothing new; `pace`: of this hour, 2 is half as fast."""
    log = directory / "access.log"
    _write_log(log, lines)
    cold: list[Cost] = []
    warm: list[Cost] = []
    for _ in range(ROUNDS):
        home = directory / "home"
        cold.append(_ours(home, "higress", log))
        warm.append(_ours(home, "higress", log))
        shutil.rmtree(home)
    alone_s = statistics.median(_read_only(log) for _ in range(ROUNDS))
    limit_s = HIGRESS_S if lines == LINES else None
    table(
        f"{log.stat().st_size / 1e6:.0f} MB of a Higress log: {lines:,} lines; median of {ROUNDS}",
        [
            *_figures("usage, all of it new, kept and priced", cold),
            *_figures("usage, nothing new", warm),
            Figure("read alone, nothing kept", alone_s, "s", limit_s),
            *(
                [Figure("  at ccusage's pace of the limits", alone_s / pace, "s", limit_s)]
                if pace
                else []
            ),
        ],
    )


def _figures(
    what: str, costs: list[Cost], at_most_s: float | None = None, at_most_mib: float | None = None
) -> list[Figure]:
    return [
        Figure(what, _median_s(costs), "s", at_most_s),
        Figure("  processor time", statistics.median(one.cpu_s for one in costs), "s"),
        Figure("  at its largest", max(one.peak_mib for one in costs), "MiB", at_most_mib),
    ]


def _ratios(
    ours: tuple[list[Cost], float, float], its_s: float, *, is_limited: bool
) -> list[Figure]:
    """Hold all new, and the work of nothing new with and without a path, against ccusage."""
    cold, work_s, plain_s = ours
    cold_most, warm_most = (
        limit_s / CCUSAGE_S if is_limited else None for limit_s in (COLD_S, WARM_S)
    )
    return [
        Figure("ours / ccusage, all new", _median_s(cold) / its_s, "x", cold_most),
        Figure("  nothing new, beyond --help", work_s / its_s, "x", warm_most),
        Figure("  without --source and --path", plain_s / its_s, "x", warm_most),
    ]


def _median_s(costs: list[Cost]) -> float:
    return statistics.median(one.wall_s for one in costs)


def _ours(home: Path, source: str, path: Path) -> Cost:
    command = [str(PROGRAM), "usage", "--source", source, "--path", str(path), "-o", "json"]
    return _run(command, {**os.environ, "SESSION_MESH_HOME": str(home)})


def _plain(home: Path, root: Path) -> Cost:
    """Call it as its users do, who have nothing but these transcripts."""
    places = {"HOME": str(home.parent), "CLAUDE_CONFIG_DIR": str(root)}
    command = [str(PROGRAM), "usage", "-o", "json"]
    return _run(command, {**os.environ, **places, "SESSION_MESH_HOME": str(home)})


def _run(command: list[str], environment: dict[str, str]) -> Cost:
    # Linux counts what a parent holds as what its child holds at birth: so a small one starts it.
    starter = [sys.executable, "-I", "-S", "-c", _STARTER, *command]
    with tempfile.TemporaryFile() as said:
        done = subprocess.run(
            starter, env=environment, stdout=said, stderr=subprocess.PIPE, check=False
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed: {done.stderr.decode()}")
        said.seek(0)
        return Cost(*map(float, done.stderr.split()[-3:]), said.read())


_STARTER = """
import os, sys, time
begin = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
wall_s = time.perf_counter() - begin
print(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, file=sys.stderr)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def _largest_mib(root: Path, directory: Path) -> float:
    """Read once more, looking at the process and those it starts all the while: not to be timed."""
    home = directory / "largest"
    command = [str(PROGRAM), "usage", "--source", "claude", "--path", str(root), "-q"]
    environment = {**os.environ, "SESSION_MESH_HOME": str(home)}
    largest = 0
    with psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            with suppress(psutil.Error):
                all_ = [process, *process.children()]
                largest = max(largest, sum(one.memory_full_info().pss for one in all_))
            time.sleep(LOOK_S)
    shutil.rmtree(home)
    return largest / 2**20


def _read_only(log: Path) -> float:
    code = """
import sys, time
from meshnode.ingest.higress import HigressReader
reader, places, more, begin = HigressReader(sys.argv[1]), {}, True, time.perf_counter()
while more:
    reading = reader.read(places, 16 << 20)
    places, more = {**places, **reading.batch.places}, reading.more
print(time.perf_counter() - begin)
"""
    return float(_run([sys.executable, "-c", code, str(log)], dict(os.environ)).said)


def _write_log(path: Path, lines: int) -> None:
    chance = Random(1)
    with path.open("w") as file:
        for number in range(lines):
            sent, received = chance.randint(100, 9000), chance.randint(1, 3000)
            cached = chance.randrange(sent)
            call = {
                "session_id": f"agent:main:session-{number // 50}",
                "chat_id": f"chatcmpl-{number}",
                "model": chance.choice(("gpt-4o", "qwen-max")),
                "input_token": sent,
                "output_token": received,
                "total_token": sent + received,
                "cached_tokens": cached,
                "input_token_details": json.dumps({"cached_tokens": cached}),
                "response_type": "stream",
                "question": "x " * chance.randint(20, 600),
            }
            second = number // 4 % 86_400
            clock = f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"
            outer = {
                "ai_log": json.dumps(call),
                "authority": "gateway.example",
                "duration": "1234",
                "method": "POST",
                "path": "/v1/chat/completions",
                "request_id": f"{chance.getrandbits(128):032x}",
                "response_code": "200",
                "start_time": f"2026-02-01T{clock}.{number % 1000:03}Z",
                "upstream_cluster": "outbound|443||llm-openai.internal.dns",
                "user_agent": "python/3",
                "x_forwarded_for": "-",
            }
            file.write(json.dumps(outer, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
