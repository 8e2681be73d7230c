"""Reading ahead with a second process: the same readings, whatever becomes of it."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core reads alone"),
]
LINES = 400
PIECE_BYTES = 4096
PROGRAM = """
import json, os, signal, sys, threading
import psutil
from msgspec import structs
from meshnode.core.ledger.charges import Charge
from meshnode.ingest.ahead import readings
from meshnode.ingest.reading import SourceConfig
from meshnode.ingest.sources import reader_of

source, path, what, bytes_max = *sys.argv[1:4], int(sys.argv[4])
parent, others = os.getpid(), psutil.Process().children
if what == "alone":
    os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])
if what == "threads":
    threading.Thread(target=threading.Event().wait, daemon=True).start()
fork = os.fork
def hasty():
    pid = fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGINT)
    return pid
def broken():
    pid = fork()
    if pid == 0:
        raise MemoryError
    return pid
def unclosed(fd):
    if os.getpid() != parent:
        raise MemoryError
    close(fd)
def refused():
    raise BlockingIOError(11, "no room for a process")
def position():
    fds = [(n, os.path.realpath("/proc/self/fd/" + n)) for n in os.listdir("/proc/self/fd")]
    return [open("/proc/self/fdinfo/" + n).readline() for n, path in fds if ".gz" in path]
os.fork = {"hasty": hasty, "refused": refused, "broken": broken}.get(what, fork)
close, os.close = os.close, unclosed if what == "unclosed" else os.close
told, charges, most = [], [], 0
def price(record):
    return Charge(record.usage.input, f"{record.model}@{os.getpid() != parent}")
def note(reading):
    batch = reading.batch
    places = {name.hex(): place.hex() for name, place in batch.places.items()}
    records = [structs.asdict(one) | {"usage": one.usage.counts} for one in batch.records]
    remarks = [(one.file, one.offset, one.reason) for one in reading.remarks]
    counts = [batch.diagnostics.unparsable_lines, batch.diagnostics.partial_tail_bytes]
    told.append([places, records, remarks, counts, reading.detail, reading.more])
    charges.append([structs.astuple(one) for one in batch.charges])
    return batch.places
reader, known = reader_of(SourceConfig(source, path)), {}
if what in ("known", "moved"):
    known = note(reader.read({}, bytes_max))
with readings(reader, known, bytes_max, price) as found:
    for reading in found.readings:
        most = max(most, len(others()))
        note(reading)
        if what == "moved" and len(told) == 2:
            before = position()
            while position() == before:
                os.sched_yield()
        if what in ("killed", "moved") and len(told) == 3:
            for one in others():
                one.kill()
        if what == "left":
            break
        if what == "orphaned":
            print(others()[0].pid, flush=True)
            os.kill(os.getpid(), 9)
print(json.dumps({"told": told, "charges": charges, "most": most, "left": len(others())}))
"""


def line(number: int) -> bytes:
    call = {"session_id": "sé", "model": "gpt-4o", "input_token": number, "output_token": 1}
    outer = {"ai_log": json.dumps(call), "request_id": f"r{number}"}
    return json.dumps(outer | {"start_time": "2026-11-20T09:30:15Z"}).encode() + b"\n"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    lines = [line(number) for number in range(LINES)]
    rotated = [*lines[: LINES // 2], b'{"ai_log":"\\ud800\n', b"\xff\n"]
    (tmp_path / "access.log.1").write_bytes(b"".join(rotated))
    (tmp_path / "access.log").write_bytes(b"".join(lines[LINES // 2 :]) + b"half")
    return tmp_path / "access.log"


def called(path: Path, what: str, source: str = "higress") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, source, str(path), what, str(PIECE_BYTES)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, start_new_session=True
    )


def read(path: Path, what: str = "", source: str = "higress") -> dict[str, object]:
    done = called(path, what, source)
    assert done.returncode == 0, done.stderr
    value: dict[str, object] = json.loads(done.stdout)
    return value


def test_two_processes_read_what_one_does_in_the_same_pieces(log: Path):
    both, alone = read(log), read(log, "alone")
    assert (both["most"], alone["most"]) == (1, 0)
    assert both["told"] == alone["told"]
    assert sum(len(reading[1]) for reading in alone["told"]) == LINES
    assert both["left"] == 0


def test_what_a_second_process_reads_it_prices_too(log: Path):
    both, alone = read(log), read(log, "alone")
    assert both["charges"] == [
        [[record["usage"][0], "gpt-4o@True"] for record in reading[1]] for reading in both["told"]
    ]
    assert alone["charges"] == [[] for _ in alone["told"]]  # the ledger prices what it keeps


def test_a_tree_with_names_that_are_no_text_is_read_alike(tmp_path: Path):
    root = tmp_path / "root"
    (root / "projects" / "p").mkdir(parents=True)
    folder = os.fsencode(root / "projects" / "p")
    golden = Path(__file__).parents[2] / "golden" / "claude"
    for number, path in enumerate(sorted(golden.glob("*.jsonl"))):
        Path(os.fsdecode(folder + b"/\xff%d.jsonl" % number)).write_bytes(path.read_bytes())
    both, alone = read(root, source="claude"), read(root, "alone", "claude")
    assert both["most"] == 1
    assert both["told"] == alone["told"]
    assert any("\\xff" in record["file"] for reading in both["told"] for record in reading[1])


@pytest.mark.parametrize("what", ["broken", "unclosed"])
def test_a_process_that_fails_before_it_reads_harms_nobody(log: Path, what: str):
    done = called(log, what)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["told"] == read(log, "alone")["told"]


def test_what_a_killed_process_has_not_told_is_read_without_it(log: Path):
    killed, alone = read(log, "killed"), read(log, "alone")
    assert killed["most"] == 1
    assert [one for reading in killed["told"] for one in reading[1]] == [
        one for reading in alone["told"] for one in reading[1]
    ]


def test_a_log_that_is_new_is_read_by_the_second_process_alone(tmp_path: Path):
    (tmp_path / "access.log").write_bytes(line(1))
    new, known = (read(tmp_path / "access.log", what) for what in ("", "known"))
    assert (new["most"], [len(reading[1]) for reading in new["told"]]) == (1, [1])
    assert (known["most"], [len(reading[1]) for reading in known["told"]]) == (0, [1, 0])


def test_who_leaves_early_leaves_no_process_behind(log: Path):
    left = read(log, "left")
    assert (left["most"], left["left"], len(left["told"])) == (1, 0, 1)


def test_a_process_with_threads_is_not_forked(log: Path):
    assert read(log, "threads")["most"] == 0


def test_a_second_process_ends_when_the_first_is_killed(log: Path):
    log.write_bytes(b"".join(map(line, range(20 * LINES))))  # more than the pipe between them holds
    done = called(log, "orphaned")  # which waits until nobody has our pipe any more
    assert (done.returncode, int(done.stdout) > 0) == (-9, True)


def test_a_process_that_is_killed_in_a_packed_log_has_not_moved_its_parent_on(tmp_path: Path):
    chance = Random(1)
    lines = [
        line(number)[:-2] + b', "x": "%s"}\n' % chance.randbytes(600).hex().encode()
        for number in range(10 * LINES)
    ]
    (tmp_path / "access.log.1.gz").write_bytes(gzip.compress(b"".join(lines), 1))
    log = tmp_path / "access.log"
    log.write_bytes(line(10 * LINES))
    killed = read(log, "moved")
    records = [one for reading in killed["told"] for one in reading[1]]
    assert (killed["most"], len(records)) == (1, 10 * LINES + 1)
    assert {reading[4] for reading in killed["told"]} == {"ok"}


def test_where_there_is_no_room_for_a_process_one_reads_alone(log: Path):
    refused, alone = read(log, "refused"), read(log, "alone")
    assert (refused["most"], refused["told"]) == (0, alone["told"])


def test_a_process_that_is_interrupted_at_birth_leaves_its_parents_affairs_alone(log: Path):
    done = called(log, "hasty")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["told"] == read(log, "alone")["told"]
