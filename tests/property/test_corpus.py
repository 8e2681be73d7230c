"""The corpus, replayed and mutated: what was ever found stays found. ./dev fuzz adds to it."""

from random import Random

import pytest
from fuzz import __main__ as command
from fuzz import corpus, loop
from fuzz.decoder import Decoder
from fuzz.decoders import DECODERS
from fuzz.loop import Crash, crash_of, fuzz, shrunk

# Of certificates that nobody sane has made; one day the library refuses them.
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")
MUTATIONS = 3  # of every file
BYTES_MAX = 500_000  # of the whole corpus


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_what_was_found_once_and_what_is_like_it_breaks_nothing(name: str):
    decoder, rng = DECODERS[name], Random(name)
    inputs = corpus.inputs_of(name)
    assert inputs, f"./dev fuzz {name!r} makes some"
    for raw in inputs:
        decoder.outcome(raw)
        for _ in range(MUTATIONS):
            decoder.outcome(corpus.mutated(raw, inputs, rng, packed=decoder.packed))


def test_the_corpus_is_small_and_nobody_elses():
    files = [file for file in corpus.ROOT.rglob("*") if file.is_file()]
    assert {file.parent for file in files} == {corpus.folder_of(name) for name in DECODERS}
    assert sum(file.stat().st_size for file in files) < BYTES_MAX


class SpoiltError(Exception):
    """What no decoder may raise."""


def broken(raw: bytes) -> str:
    if b"\xff" in raw and len(raw) > 2:
        raise SpoiltError
    return "value"


def test_the_loop_finds_what_breaks_and_makes_it_small(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "ROOT", tmp_path)
    report = fuzz("broken", Decoder(broken, (b"valid", b"\xfe\xfe\xfe")), 0.2, seed=1)
    ((crash, raw),) = report.crashes.items()
    assert crash.error == "SpoiltError"
    assert (len(raw), b"\xff" in raw) == (3, True)
    assert raw in corpus.inputs_of("broken")


def test_an_input_that_hangs_or_takes_too_much_memory_is_a_crash(monkeypatch):
    monkeypatch.setattr(loop, "HANGS_S", 0.05)
    monkeypatch.setattr(loop, "MEMORY_BYTES_MAX", 1 << 20)

    def endless(raw: bytes) -> None:
        while raw:
            pass

    crash, _ = crash_of(Decoder(endless, ()), b"x")
    assert crash is not None
    assert crash.error == "HangError"
    crash, _ = crash_of(Decoder(lambda raw: len(bytes(2 << 20)), ()), b"x", weighed=True)
    assert crash is not None
    assert crash.error == "MemoryUsedError"


def test_what_is_left_out_of_a_crash_is_what_it_does_without():
    crash, _ = crash_of(Decoder(broken, ()), b"a\xff" * 20)
    assert isinstance(crash, Crash)
    assert len(shrunk(Decoder(broken, ()), b"a\xff" * 20, crash)) == 3


def test_no_more_is_kept_than_there_is_room_for(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "ROOT", tmp_path)
    assert not corpus.keep("one", bytes(corpus.FILE_BYTES_MAX + 1))
    kept = [corpus.keep("one", b"%d" % number) for number in range(corpus.FILES_MAX + 1)]
    assert kept == [True] * corpus.FILES_MAX + [False]
    assert corpus.keep("one", b"broke", crashed=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "'nonsense' is no decoder: "),
        (["--minutes", "0"], "--minutes must be more than 0, not 0.0"),
        (["--minutes", "nan"], "--minutes must be more than 0, not nan"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_with_a_sentence(capsys, words: list[str], said: str):
    with pytest.raises(SystemExit) as ended:
        command.main(words)
    assert ended.value.code == 2
    assert f"./dev fuzz: error: {said}" in " ".join(capsys.readouterr().err.split())


def test_the_command_says_what_it_did(capsys):
    words = ["genesis", "duration", "--minutes", "0.001", "--discard"]
    assert command.main(words) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("genesis: ")
    assert said[-1] == "passed: nothing broke 2 decoders"
