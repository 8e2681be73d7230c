"""Reading a tree of transcripts: many files that only grow, are moved, rewritten and deleted.

Invariant: only whole lines are read. A file that is not what its place says, because it was emptied
or replaced, is read from its start: records are known by their keys, so none counts twice. For the
same reason a place may be forgotten whose file is gone for good, as far as anybody can tell.
"""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG
from struct import Struct
from threading import Lock
from typing import TYPE_CHECKING, Protocol

import msgspec

from meshnode.core.ids import pasted
from meshnode.core.ledger.ledger import Batch, DiagnosticsKey
from meshnode.ingest.lenient import file_text
from meshnode.ingest.reading import (
    STATE_BYTES_MAX,
    Findings,
    OutdatedError,
    Reading,
    Reason,
    unmarked,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from meshnode.ingest.reading import Parser

CHUNK_BYTES = 4 << 20  # of a file held in memory at a time; a line that is longer is skipped
BEHIND_BYTES = 256  # compared before reading on
PACKED = ".zst"  # Codex packs rollouts that rest; the standard library cannot unpack it yet
FILES_MAX = 100_000  # of one tree, the first found; said in the reading's detail
GONE_NS = 180 * 86400 * 10**9  # a file that is gone, and was written so long before the newest
WHOLE_BYTES_MAX = 64 << 20  # of a file that is one document; larger: unparsable
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # by now it may be a pipe without a writer
_PLACE = Struct("<QqQQB8s")  # a file may say that it is older than 1970
_SHORT, _TOLD, _UNTOLD = range(3)  # whether a line is being skipped, and was told as left out
LEFT_OUT = (Reason.NO_USAGE, Reason.UNPARSABLE, Reason.QUARANTINED)
_COUNTS = Struct(f"<{len(LEFT_OUT)}Q")  # of a document: how often each was in it, as its state


class Format(Protocol):
    """What the files of one agent look like."""

    source: str

    def files(self, root: Path) -> Iterator[str]:
        """Find the files of a directory; raises OSError for what cannot be listed.

        Those that are packed, too: they are told, and not read.
        """

    def elsewhere(self, root: Path, name: str) -> Iterable[str]:
        """Tell where else what a file says may be or have been read: under which other names."""

    def is_whole(self, path: Path) -> bool:
        """Tell whether a file is one document, written anew each time, rather than lines."""

    def begin(self, path: Path, state: bytes, root: Path) -> Parser:
        """Go on with a file under a root where `state` was returned, b"" for its start.

        Raises OutdatedError for a state with which it is to be read anew.
        """


def files_of(transcripts: Format, root: Path) -> Iterator[str]:
    """Find what is read under a root, or the root if it is a file; raises OSError as `Format` does.

    As texts: there are thousands, and a Path takes longer to make than its file to be looked at.
    """
    return (name for name in _found(transcripts, root) if not name.endswith(PACKED))


def _found(transcripts: Format, root: Path) -> Iterator[str]:
    if root.is_file():
        yield str(root)
    else:
        yield from transcripts.files(root)


class _Place(msgspec.Struct, frozen=True):
    """How far a file is read; `before` is the hash of the bytes that lead up to the offset."""

    inode: int = 0
    mtime_ns: int = 0
    size: int = 0
    offset: int = 0
    long_line: int = _SHORT
    before: bytes = bytes(8)
    state: bytes = b""

    @property
    def tail_bytes(self) -> int:
        return 0 if self.long_line else max(self.size - self.offset, 0)

    def packed(self) -> bytes:
        numbers = (self.inode, self.mtime_ns, self.size, self.offset)
        return _PLACE.pack(*numbers, self.long_line, self.before) + self.state


def _unpacked(place: bytes | None) -> _Place:
    if place is None or len(place) < _PLACE.size:  # unreadable: read all again, count none twice
        return _Place()
    inode, mtime_ns, size, offset, long_line, before = _PLACE.unpack_from(place)
    return _Place(inode, mtime_ns, size, offset, long_line, before, place[_PLACE.size :])


class _Run(msgspec.Struct):
    """One call of `read`: what it may still read, and what it has found."""

    places: Mapping[bytes, bytes]
    bytes_left: int
    findings: Findings = msgspec.field(default_factory=Findings)
    moved: dict[bytes, bytes] = msgspec.field(default_factory=dict)
    troubles: list[str] = msgspec.field(default_factory=list)


class TreeReader:
    """Reads all transcripts under one root on. Blocking: use a thread.

    `marks`: a line that tells of usage bears one of them; without any, each line may.
    """

    def __init__(
        self,
        transcripts: Format,
        root: str,
        session_key: str | None = None,
        marks: Sequence[bytes] = (),
    ) -> None:
        self._format = transcripts
        self._root = Path(root).expanduser().absolute()
        self._session_key = session_key
        self._marks = marks
        self._reading = Lock()
        self._listed: list[str] = []  # found and not looked at yet, the next one last
        self._gone: set[bytes] = set()  # places whose files were not found yet
        self._known = 0  # how many places there were when those were last looked through
        self._newest_ns = 0
        self._tail_bytes = 0
        self._name = file_text(self._root)
        named = f"{transcripts.source}\0{self._name}\0{session_key or ''}"
        path_hash = sha256(named.encode("utf-8", "replace")).hexdigest()[:16]
        self.key = DiagnosticsKey(transcripts.source, path_hash)

    def read(self, places: Mapping[bytes, bytes], bytes_max: int) -> Reading:
        """Read on: about bytes_max. See `Reader`."""
        run = _Run(places, bytes_max)
        with self._reading:
            if not self._listed:
                self._tail_bytes = 0
                self._list(run)
            while self._listed and run.bytes_left > 0:
                self._try(self._listed.pop(), run)
            if not self._listed:
                self._forget_gone(run)
        found = run.findings
        records = tuple(
            record
            for record in found.records
            if self._session_key is None or record.session == self._session_key
        )
        diagnostics = found.diagnostics(self._tail_bytes)
        superseded = found.superseded
        batch = Batch(self.key, self._name, run.moved, records, diagnostics, superseded=superseded)
        return Reading(batch, bool(self._listed), _detail(run), tuple(found.remarks))

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _list(self, run: _Run) -> None:
        packed: list[str] = []
        self._gone = set()
        try:
            for name in _found(self._format, self._root):
                if name.endswith(PACKED):
                    packed.append(name)
                    continue
                if len(self._listed) == FILES_MAX:
                    run.troubles.append(f"{self._name} holds more than {FILES_MAX} files")
                    break
                self._listed.append(name)
            else:  # all that there are
                if len(self._listed) < len(run.places) != self._known:
                    self._gone = set(run.places)
        except FileNotFoundError:
            run.troubles.append(f"waiting for {self._name}: it does not exist yet")
        except OSError as error:
            run.troubles.append(f"cannot read {self._name}: {error.strerror}")
        self._listed.sort(reverse=True)
        self._gone.difference_update(map(_key_of, self._unpacked_names(packed)))
        unread = sorted(one for one in packed if self._is_news(one, run))
        if unread:
            are = "rollouts are" if len(unread) > 1 else "rollout is"
            told = f"{len(unread)} {are} packed by zstd and not read"
            more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
            run.troubles.append(f"{told}; to count: zstd -d {pasted(file_text(unread[0]))}{more}")

    def _unpacked_names(self, packed: Iterable[str]) -> Iterator[str]:
        """Tell what packed files may have been read as: a place says that they were."""
        for one in packed:
            name = one.removesuffix(PACKED)
            yield name
            yield from self._format.elsewhere(self._root, name)

    def _is_news(self, packed: str, run: _Run) -> bool:
        """Tell whether a file that was packed is nowhere unpacked, nor was read when it was."""
        names = self._unpacked_names([packed])
        return not any(_key_of(one) in run.places or os.path.lexists(one) for one in names)

    def _forget_gone(self, run: _Run) -> None:
        """Forget the places of files that went long ago: there is one for each that ever was.

        Should a file come back, it is read again. What it tells then is known by its keys.
        """
        if not self._gone:
            return
        self._known = len(run.places)
        for key in self._gone:
            if _unpacked(run.places.get(key)).mtime_ns < self._newest_ns - GONE_NS:
                run.moved[key] = b""
        self._gone = set()

    def _try(self, name: str, run: _Run) -> None:
        key = _key_of(name)
        self._gone.discard(key)
        try:
            found = os.stat(name)  # noqa: PTH116 - twice as quick, and there are thousands
            self._newest_ns = max(self._newest_ns, found.st_mtime_ns)
            if not S_ISREG(found.st_mode):  # opening a pipe would wait for a writer
                return
            place = _unpacked(run.places.get(key))
            seen = (place.inode, place.mtime_ns, place.size)
            if seen != (found.st_ino, found.st_mtime_ns, found.st_size):
                file, path = os.open(name, _READ), Path(name)
                try:
                    take = self._take_whole if self._format.is_whole(path) else self._take_lines
                    place = take(file, path, place, run)
                finally:
                    os.close(file)
                run.moved[key] = place.packed()
            self._tail_bytes += place.tail_bytes
        except FileNotFoundError:
            pass  # deleted since it was listed: what was read of it stays counted
        except OSError as error:
            run.troubles.append(f"cannot read {file_text(name)}: {error.strerror}")

    def _take_lines(self, file: int, path: Path, place: _Place, run: _Run) -> _Place:
        found = os.fstat(file)
        if place.offset > found.st_size or _hash_before(file, place.offset) != place.before:
            place = _Place()
        place, parser = self._begun(path, place)
        offset, long_line, ended = place.offset, place.long_line, False
        while not ended and run.bytes_left > 0:
            found = os.fstat(file)
            # One byte more than there is: that it does not come is how the end is known.
            wanted = min(max(found.st_size - offset, 0) + 1, CHUNK_BYTES)
            chunk = os.pread(file, wanted, offset)
            whole = chunk.rfind(b"\n") + 1
            ended = len(chunk) < wanted
            if whole:
                begin = chunk.find(b"\n") + 1 if long_line else 0
                if long_line == _UNTOLD:
                    self._skip_part(file, path, offset, chunk[:begin], run)
                long_line = _SHORT
                lines = chunk if (begin, whole) == (0, len(chunk)) else chunk[begin:whole]
                parser.take(*unmarked(lines, offset + begin), run.findings)
            elif not ended and len(chunk) == CHUNK_BYTES:
                if long_line != _TOLD:
                    long_line = self._skip_part(file, path, offset, chunk, run)
                whole = len(chunk)
            else:
                ended = True  # for now: files of /proc are larger than they say
            offset += whole
            run.bytes_left -= whole
        if not ended:  # it is looked at again, and first
            self._listed.append(str(path))
        state = parser.state()
        return _Place(
            found.st_ino,
            found.st_mtime_ns if ended else 0,
            found.st_size if ended else offset,
            offset,
            long_line,
            _hash_before(file, offset),
            state if len(state) <= STATE_BYTES_MAX else b"",
        )

    def _begun(self, path: Path, place: _Place) -> tuple[_Place, Parser]:
        """Go on from a place; from the start if an older version was there and knew too little."""
        try:
            return place, self._format.begin(path, place.state, self._root)
        except OutdatedError:
            return _Place(), self._format.begin(path, b"", self._root)

    def _skip_part(self, file: int, path: Path, offset: int, part: bytes, run: _Run) -> int:
        """Skip a part of a line that is too long; tell of the line if it may have been usage."""
        before = os.pread(file, min(offset, BEHIND_BYTES), max(offset - BEHIND_BYTES, 0))
        looked = before.rpartition(b"\n")[2] + part  # a mark may begin in the part before
        if self._marks and not any(mark in looked for mark in self._marks):
            return _UNTOLD
        run.findings.skip(Reason.UNPARSABLE, file_text(path), _line_begin(file, offset))
        return _TOLD

    def _take_whole(self, file: int, path: Path, place: _Place, run: _Run) -> _Place:
        found, skipped = os.fstat(file), run.findings.skipped
        others = [skipped[reason] for reason in LEFT_OUT]
        if found.st_size > WHOLE_BYTES_MAX:
            run.findings.skip(Reason.UNPARSABLE, file_text(path), 0)
        else:
            whole = unmarked(os.pread(file, found.st_size, 0), 0)
            self._format.begin(path, b"", self._root).take(*whole, run.findings)
        run.bytes_left -= found.st_size
        counts = [skipped[reason] - other for reason, other in zip(LEFT_OUT, others, strict=True)]
        if len(place.state) == _COUNTS.size:  # what was wrong in it before is so no more, or again
            skipped.subtract(dict(zip(LEFT_OUT, _COUNTS.unpack(place.state), strict=True)))
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        return _Place(*seen, offset=found.st_size, state=_COUNTS.pack(*counts))


def _key_of(name: str) -> bytes:
    return sha256(os.fsencode(name)).digest()[:16]


def _hash_before(file: int, offset: int) -> bytes:
    behind = min(offset, BEHIND_BYTES)
    before = os.pread(file, behind, offset - behind) if behind else b""
    return sha256(before).digest()[:8] if behind else bytes(8)


def _line_begin(file: int, offset: int) -> int:
    while offset > 0:
        begin = max(offset - CHUNK_BYTES, 0)
        newline = os.pread(file, offset - begin, begin).rfind(b"\n")
        if newline >= 0:
            return begin + newline + 1
        offset = begin
    return 0


def _detail(run: _Run) -> str:
    if not run.troubles:
        return "ok"
    more = len(run.troubles) - 1
    return run.troubles[0] + (f" (and {more} more)" if more else "")
