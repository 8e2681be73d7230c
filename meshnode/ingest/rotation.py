"""Reading a log that grows, is rotated, copied, truncated and packed, whatever its lines mean.

Invariant: only whole lines are read, each once, however the file is rotated, because what is read
is known by the file's first line; the position is a value that is kept with what it counted.
"""

from __future__ import annotations

import os
import stat
import zlib
from contextlib import ExitStack, suppress
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import astuple

from meshnode.core.errors import PeerError
from meshnode.core.ledger.ledger import Batch, DiagnosticsKey
from meshnode.core.packing import pack, typed, unpack
from meshnode.ingest.reading import LINE_BYTES_MAX, Findings, Reading, Reason, Skipped, unmarked
from meshnode.ingest.rotated import FILES_MAX, PACKED, beside, is_readable, left_out, rotated
from meshnode.ingest.unpacking import Unpacked

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meshnode.ingest.reading import ParseLine, ParseRound

HEAD_BYTES = 8192  # read for the first line, and more only if that is longer
BEHIND_BYTES = 4096  # compared before reading on: some request ids are among them
POSITION = b""  # the one place under which a reader keeps those of all its files
PIECE_BYTES_MAX = 16 << 20  # read at once, however much may be: however long the log
OPEN_FILES_MAX = 4  # renamed files kept open until they end; beyond that the oldest is let go


class _Place(msgspec.Struct, frozen=True):
    """How far one file is read; `before` is the hash of the bytes that lead up to the offset."""

    device: int
    inode: int
    fingerprint: bytes
    offset: int = 0
    before: bytes = b""
    in_long_line: bool = False  # what follows belongs to a line that is being skipped
    size: int = -1  # of the file itself, packed or not, once it was read to its end
    mtime_ns: int = 0  # of that time


def _place_from(values: object) -> _Place:
    """Check what a position says; raises TypeError or ValueError."""
    device, inode, fingerprint, offset, before, in_long_line, *end = typed(values, list)
    size, mtime_ns = end or (-1, 0)  # older versions did not keep them
    if typed(offset, int) < 0:
        raise ValueError("a file is read from its start on")
    return _Place(
        typed(device, int),
        typed(inode, int),
        typed(fingerprint, bytes),
        offset,
        typed(before, bytes),
        typed(in_long_line, bool),
        typed(size, int),
        typed(mtime_ns, int),
    )


class _Places:
    """The position of a reader: places of the files met lately, the latest last."""

    def __init__(self, position: bytes) -> None:
        self._places: dict[tuple[int, int, bytes], _Place] = {}
        self._ended: dict[tuple[int, int, int, int], _Place] = {}
        with suppress(PeerError, TypeError, ValueError):  # unreadable: read all again, count none
            for values in unpack(position) if position else ():
                self.put(_place_from(values))

    def put(self, place: _Place) -> None:
        key = (place.device, place.inode, place.fingerprint)
        self._places.pop(key, None)
        self._places[key] = place
        if place.size >= 0:
            self._ended[(place.device, place.inode, place.size, place.mtime_ns)] = place
        while len(self._places) > 2 * FILES_MAX:
            del self._places[next(iter(self._places))]

    def has_ended(self, found: os.stat_result) -> bool:
        """Tell whether a file was read to its end, and is as it was then."""
        place = self._ended.get(_state(found))
        if place is not None:
            self.put(place)  # it was met
        return place is not None

    def known(self, fingerprint: bytes) -> list[_Place]:
        """Return where files that begin like this one were left: the furthest first."""
        same = (place for place in self._places.values() if place.fingerprint == fingerprint)
        return sorted(same, key=lambda place: -place.offset)

    def packed(self) -> bytes:
        return pack([list(astuple(place)) for place in self._places.values()])


class _Plain:
    """A file that is not packed, as it is by now, also where one has looked before.

    A log is held open for long, and may be emptied and written anew meanwhile: a buffer would go on
    telling what it was.
    """

    def __init__(self, path: Path) -> None:
        self._raw = path.open("rb", buffering=0)
        self._at = 0

    def fileno(self) -> int:
        return self._raw.fileno()

    def close(self) -> None:
        self._raw.close()

    def seek(self, offset: int) -> None:
        self._at = offset

    def readline(self, size: int) -> bytes:
        """Return the first line, or so many bytes of it, from wherever one is."""
        self._at = 0
        head = self.read(min(size, HEAD_BYTES))
        if b"\n" not in head and len(head) == HEAD_BYTES:
            head += self.read(size - HEAD_BYTES)
        line, newline, _ = head.partition(b"\n")
        return line + newline

    def read(self, size: int) -> bytes:
        """Return so many bytes; fewer at the end."""
        read = os.pread(self._raw.fileno(), size, self._at)
        self._at += len(read)
        while 0 < len(read) < size:  # not the end yet, perhaps: some disks give less at a time
            more = os.pread(self._raw.fileno(), size - len(read), self._at)
            if not more:
                break
            read += more
            self._at += len(more)
        return read


class _Run(msgspec.Struct):
    """One call of `read`: what it may still read, and what it has found."""

    parse: ParseLine
    places: _Places
    bytes_left: int
    session_key: str | None
    parse_round: ParseRound | None = None
    findings: Findings = msgspec.field(default_factory=Findings)
    news: set[tuple[int, int]] = msgspec.field(default_factory=set)
    detail: str = ""
    tail_bytes: int = 0
    live: tuple[int, int] | None = None
    live_begun: bool = False

    def take(self, file: _Plain | Unpacked, path: str, *, live: bool = False) -> None:
        """Read whole lines on from where this file was left, as far as the budget goes."""
        found = os.fstat(file.fileno())
        fingerprint = _fingerprint(file)
        if fingerprint is None:  # not one whole line yet
            self.tail_bytes = found.st_size if live else self.tail_bytes
            return
        self.live_begun |= live
        place, behind, chunk = self._left_at(file, found, fingerprint)
        ended = (found.st_size, found.st_mtime_ns) if len(chunk) < self.bytes_left else ()
        whole = chunk.rfind(b"\n") + 1
        tail_bytes = len(chunk) - whole  # of a full chunk these are read again
        in_long_line = place.in_long_line and not whole
        if whole:
            self._lines(chunk, whole, place, path)
        elif in_long_line or tail_bytes > LINE_BYTES_MAX:
            if not in_long_line:
                self.findings.skip(Reason.UNPARSABLE, path, place.offset)
            in_long_line, whole, tail_bytes = True, tail_bytes, 0
        self.tail_bytes = tail_bytes if live else self.tail_bytes
        ident, offset = (found.st_dev, found.st_ino), place.offset + whole
        end = chunk[max(whole - BEHIND_BYTES, 0) : whole]
        before = _hash_of_end(behind + end)
        ended = () if live else ended  # a log that is written to is looked at each time
        self.places.put(_Place(*ident, fingerprint, offset, before, in_long_line, *ended))
        if whole:
            self.news.add(ident)
            self.bytes_left -= len(chunk)

    def _left_at(
        self, file: _Plain | Unpacked, found: os.stat_result, fingerprint: bytes
    ) -> tuple[_Place, bytes, bytes]:
        """Return a place, the bytes leading up to it, and those after it.

        A copy goes on where its original was left. A file that only begins like one we know,
        because it was emptied or because they all begin alike, is read from its start.
        """
        for place in self.places.known(fingerprint):
            behind, chunk = _chunk(file, place.offset, self.bytes_left)
            if _hash_of_end(behind) == place.before:
                return place, behind, chunk
        place = _Place(found.st_dev, found.st_ino, fingerprint)
        return place, *_chunk(file, 0, self.bytes_left)

    def _lines(self, chunk: bytes, whole: int, place: _Place, path: str) -> None:
        """Read the lines that so many bytes of a chunk hold, which is as large as a piece may be.

        `split` looks at each byte by itself, and takes four times as long.
        """
        chunk, offset = unmarked(chunk, place.offset)
        whole -= offset - place.offset
        name, begin = place.fingerprint.hex(), 0
        while begin < whole:
            end = chunk.find(b"\n", begin)
            if begin or not place.in_long_line:
                self._line(chunk[begin:end], path, name, offset + begin)
            begin = end + 1

    def _line(self, line: bytes, path: str, fingerprint: str, offset: int) -> None:
        if len(line) > LINE_BYTES_MAX:
            self.findings.skip(Reason.UNPARSABLE, path, offset)
            return
        found = self.parse(line, path, fingerprint, offset)
        if self.session_key is not None and found.session not in (self.session_key, None):
            return
        if isinstance(found, Skipped):
            self.findings.skip(found.reason, path, offset)
        else:
            self.findings.records.append(found)
            if self.parse_round is not None:
                self.findings.rounds.append(self.parse_round(line, found))


class RotatingReader:
    """Reads one log on, with the files that it was rotated into. Blocking: use a thread.

    Rotation by renaming (numbered, dated, packed with gzip) and by copying and truncating. A
    renamed file is also read to its end through its open descriptor, whatever its new name is.
    With `parse_round` it also brings what was said.
    """

    def __init__(
        self,
        source: str,
        parse: ParseLine,
        path: str,
        session_key: str | None,
        parse_round: ParseRound | None = None,
    ) -> None:
        self._source = source
        self._parse = parse
        self._parse_round = parse_round
        self._path = Path(path).expanduser().absolute()
        self._session_key = session_key
        self._reading = Lock()
        self._held: dict[tuple[int, int], _Plain] = {}
        self._unpacking: tuple[tuple[int, int, int, int], Unpacked] | None = None
        # With another filter it is another reader: lifting the filter must count the past as well.
        named = f"{source}\0{self._path}\0{session_key or ''}"
        self.key = DiagnosticsKey(source, sha256(named.encode("utf-8", "replace")).hexdigest()[:16])

    def read(self, places: Mapping[bytes, bytes], bytes_max: int) -> Reading:
        """Read on: at most bytes_max, or a single line. See `Reader`."""
        bytes_max = min(bytes_max, PIECE_BYTES_MAX)
        known = _Places(places.get(POSITION, b""))
        run = _Run(self._parse, known, bytes_max, self._session_key, self._parse_round)
        with self._reading:
            found_beside = beside(self._path)
            run.detail = left_out(self._path, found_beside)
            for path in [*rotated(found_beside), self._path]:
                if run.bytes_left > 0 and is_readable(path):
                    self._try(path, run)
            self._take_renamed(run)
        found = run.findings
        position = run.places.packed()
        moved = position != places.get(POSITION, b"")
        batch = Batch(
            self.key,
            str(self._path),
            {POSITION: position} if moved else {},
            tuple(found.records),
            found.diagnostics(run.tail_bytes),
            tuple(found.rounds),
        )
        return Reading(batch, run.bytes_left <= 0, run.detail or "ok", tuple(found.remarks))

    def close(self) -> None:
        """Let go of all files; waits for a `read` in another thread to end."""
        with self._reading:
            for file in self._held.values():
                file.close()
            self._held.clear()
            self._let_go_of_gzip()

    def _try(self, path: Path, run: _Run) -> None:
        live = path == self._path
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):  # opening a pipe would wait for a writer
                run.detail = f"{path} is no file"
            elif (path.suffix == PACKED or not live) and run.places.has_ended(found):
                pass
            elif path.suffix == PACKED:
                self._take_gzip(path, found, run)
            else:
                self._take_plain(path, run, live=live)
        except FileNotFoundError:
            if live:
                run.detail = f"waiting for {path}: it does not exist yet"
        except PermissionError:
            run.detail = f"cannot read {path}: let this user read it, for example through its group"
        except (OSError, EOFError, zlib.error) as error:
            run.detail = f"cannot read {path}: {error}"

    def _take_plain(self, path: Path, run: _Run, *, live: bool) -> None:
        file = _Plain(path)
        found = os.fstat(file.fileno())
        ident = (found.st_dev, found.st_ino)
        run.live = ident if live else run.live
        with ExitStack() as stack:
            if live and ident not in self._held:
                self._hold(ident, file)
            else:
                stack.callback(file.close)
            run.take(file, str(path), live=live)

    def _hold(self, ident: tuple[int, int], file: _Plain) -> None:
        if len(self._held) >= OPEN_FILES_MAX:
            self._held.pop(next(iter(self._held))).close()
        self._held[ident] = file

    def _take_gzip(self, path: Path, found: os.stat_result, run: _Run) -> None:
        try:
            run.take(self._unpacked(_state(found), path), str(path))
        except BaseException:
            self._let_go_of_gzip()
            raise
        if run.places.has_ended(found):
            self._let_go_of_gzip()

    def _unpacked(self, key: tuple[int, int, int, int], path: Path) -> Unpacked:
        """Return a packed file as far as it is unpacked: each piece from the start is quadratic."""
        if self._unpacking is None or self._unpacking[0] != key:
            self._let_go_of_gzip()
            self._unpacking = (key, Unpacked(path.open("rb")))
        return self._unpacking[1]

    def _let_go_of_gzip(self) -> None:
        if self._unpacking is not None:
            self._unpacking[1].close()
            self._unpacking = None

    def _take_renamed(self, run: _Run) -> None:
        """Read files to their end that had our name; let go of them when their heir has begun."""
        for ident in [ident for ident in self._held if ident != run.live]:
            if run.bytes_left > 0:
                run.take(self._held[ident], str(self._path))
                # Nothing new since the position that is safely kept: only then is it read.
                if run.live_begun and ident not in run.news:
                    self._held.pop(ident).close()


def _state(found: os.stat_result) -> tuple[int, int, int, int]:
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _fingerprint(file: _Plain | Unpacked) -> bytes | None:
    """Name a file by its first whole line, which holds a time and a request id."""
    head = file.readline(LINE_BYTES_MAX)
    if not head.endswith(b"\n") and len(head) < LINE_BYTES_MAX:
        return None
    return sha256(head).digest()[:16]


def _chunk(file: _Plain | Unpacked, offset: int, bytes_max: int) -> tuple[bytes, bytes]:
    """Return the bytes that lead up to an offset, and what follows: at least a line if there is."""
    behind = min(offset, BEHIND_BYTES)
    file.seek(offset - behind)
    before = file.read(behind)
    if len(before) < behind:
        return before, b""
    read = file.read(bytes_max)
    if len(read) == bytes_max and b"\n" not in read:
        more, newline, _ = file.read(max(LINE_BYTES_MAX + 1 - bytes_max, 0)).partition(b"\n")
        read += more + newline
    return before, read


def _hash_of_end(read: bytes) -> bytes:
    return sha256(read[-BEHIND_BYTES:]).digest()[:8] if read else b""
