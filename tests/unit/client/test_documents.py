"""Documents as they are read: what a pipe brings, and escapes that make no text."""

import os
from pathlib import Path
from threading import Thread

import pytest

from meshnode.client import documents
from meshnode.client.documents import parse_document, read_document
from meshnode.core.errors import UsageError


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    os.mkfifo(path)
    return path


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(pipe, monkeypatch):
    monkeypatch.setattr(documents, "PIPE_WAIT_S", 0.01)
    with pytest.raises(UsageError, match="nobody writes to"):
        read_document(pipe)


def test_what_a_pipe_brings_is_read_to_its_end(pipe):
    brought = b"node: a\nlabels: {text: " + b"x" * (1 << 18) + b"}\n"
    writer = Thread(target=pipe.write_bytes, args=(brought,))
    writer.start()
    found = read_document(pipe).map("it")
    writer.join()
    assert len(found["labels"].labels("labels")["text"]) == 1 << 18


@pytest.mark.parametrize("escape", [r"\uD800", r"\udfff", r"\0", r"\x00"])
def test_half_a_character_or_a_nul_is_refused_wherever_it_stands(escape):
    for text in (f'a: "{escape}"', f'"{escape}": a', f'a: [b, "x{escape}"]'):
        with pytest.raises(UsageError, match=r"^c\.yaml:2: half a character, or a NUL"):
            parse_document(b"---\n" + text.encode(), "c.yaml")
