"""YAML whose scalars stay as they are written: `0123` is no 83, and `no` is no false.

Invariant: a document is bounded, has no aliases and no key twice, and every value knows its line,
so that whoever reads it can say where it is off.
"""

from __future__ import annotations

import os
import re
from select import POLLIN, poll
from stat import S_ISFIFO
from typing import TYPE_CHECKING, NoReturn

import msgspec
import yaml

from meshnode.client.words import nearest
from meshnode.core.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

DOCUMENT_BYTES_MAX = 1 << 20  # larger: UsageError
PIPE_WAIT_S = 10.0  # for the first word of a pipe; then: UsageError
DEPTH_MAX = 32  # deeper: UsageError
_NOWHERE = re.compile("[\0\ud800-\udfff]")
FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Entry(msgspec.Struct, frozen=True):
    """A value of a document: a text, a list, a map, or None when nothing is written."""

    value: str | list[Entry] | dict[str, Entry] | None
    line: int
    document: str

    @property
    def place(self) -> str:
        """The document and the line."""
        return f"{self.document}:{self.line}"

    def fail(self, message: str, hint: str = "") -> NoReturn:
        """Raise a UsageError that names the document and the line."""
        raise UsageError(f"{self.place}: {message}", hint)

    def text(self, name: str) -> str:
        """Return the text; raises UsageError if it is something else, or nothing."""
        if not isinstance(self.value, str) or not self.value:
            self.fail(f'"{name}" should be a text')
        return self.value

    def items(self, name: str) -> list[Entry]:
        """Return the entries of a list; nothing is an empty one."""
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            self.fail(f'"{name}" should be a list')
        return self.value

    def map(self, name: str) -> dict[str, Entry]:
        """Return the entries of a map; nothing is an empty one."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            self.fail(f'"{name}" should be a map of keys and values')
        return self.value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return the texts of a list."""
        return tuple(item.text(name) for item in self.items(name))

    def labels(self, name: str) -> dict[str, str]:
        """Return a map of texts."""
        return {key: item.text(f"{name}.{key}") for key, item in self.map(name).items()}

    def flag(self, name: str) -> bool:
        """Return true or false, however YAML lets one write them."""
        flag = FLAGS.get(self.value.lower()) if isinstance(self.value, str) else None
        if flag is None:
            self.fail(f'"{name}" should be true or false')
        return flag

    def choice(self, name: str, choices: Iterable[str]) -> str:
        """Return one of a few words."""
        known = tuple(choices)
        text = self.text(name)
        if text not in known:
            self.fail(f'"{name}" cannot be "{text[:40]}"{nearest(text, known)}', _listed(known))
        return text

    def check_keys(self, known: Iterable[str]) -> None:
        """Raise a UsageError naming the nearest valid key for the first unknown one."""
        names = tuple(known)
        for key, item in self.map("the document").items():
            if key not in names:
                item.fail(f'unknown key "{key[:40]}"{nearest(key, names)}', _listed(names))


def read_document(path: Path) -> Entry:
    """Read a YAML file; raises NotFoundError or UsageError."""
    return parse_document(read_bytes(path), path.name)


def read_bytes(path: Path) -> bytes:
    """Return what is to be parsed; raises as above. What a pipe brings is there only once."""
    try:
        return _bytes_of(path)
    except FileNotFoundError:
        raise NotFoundError(f"{path} is missing", "name a file that is there") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def _bytes_of(path: Path) -> bytes:
    """Read what a file holds, or a pipe brings: opening one does not wait for a writer here."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if S_ISFIFO(os.fstat(file.fileno()).st_mode):
            waiting = poll()
            waiting.register(file, POLLIN)
            if not waiting.poll(PIPE_WAIT_S * 1000):
                raise UsageError(f"{path} is a pipe that nobody writes to", "name a file")
        os.set_blocking(file.fileno(), True)
        return file.read(DOCUMENT_BYTES_MAX + 1)


def parse_document(raw: bytes, name: str) -> Entry:
    """Parse YAML, keeping scalars as written; raises UsageError naming file and line."""
    if len(raw) > DOCUMENT_BYTES_MAX:
        raise UsageError(f"{name} is larger than {DOCUMENT_BYTES_MAX} bytes")
    try:
        text = raw.decode("utf-8-sig")
        _refuse_depth_and_aliases(text, name)
        root = yaml.compose(text, yaml.SafeLoader)
    except UnicodeDecodeError:
        raise UsageError(f"{name} is not UTF-8") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{name}:{line}: {error.problem or 'not YAML'}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{name}: {str(error).splitlines()[0][:200]}") from None
    return Entry(None, 1, name) if root is None else _entry(root, name)


def _refuse_depth_and_aliases(text: str, name: str) -> None:
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise UsageError(f"{name}:{line}: aliases are not allowed here", "write it out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEPTH_MAX:
            raise UsageError(f"{name}:{line}: nested deeper than {DEPTH_MAX}")


def _entry(node: yaml.Node, name: str) -> Entry:
    line = node.start_mark.line + 1
    match node:
        case yaml.MappingNode():
            return Entry(_pairs(node, name), line, name)
        case yaml.SequenceNode():
            return Entry([_entry(item, name) for item in node.value], line, name)
        case yaml.ScalarNode():
            absent = node.style is None and node.value in {"", "~", "null"}
            return Entry(None if absent else _text_of(node, name), line, name)
        case _:
            raise UsageError(f"{name}:{line}: neither a text, a list nor a map")


def _pairs(node: yaml.MappingNode, name: str) -> dict[str, Entry]:
    pairs: dict[str, Entry] = {}
    for key, item in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise UsageError(f"{name}:{line}: a key should be a text")
        text = _text_of(key, name)
        if text in pairs:
            raise UsageError(f'{name}:{line}: key "{text[:40]}" stands twice')
        entry = _entry(item, name)
        pairs[text] = Entry(entry.value, line, name)
    return pairs


def _text_of(node: yaml.ScalarNode, name: str) -> str:
    """Return what is written, unless escapes make of it what no file, row or stream takes."""
    text = str(node.value)
    if _NOWHERE.search(text):
        line = node.start_mark.line + 1
        raise UsageError(f"{name}:{line}: half a character, or a NUL", "check what follows a \\")
    return text


def _listed(names: Iterable[str]) -> str:
    return f"one of: {', '.join(names)}"
