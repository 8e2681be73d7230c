"""A log of Higress that is rotated, and a reader that goes on from its own position."""

from pathlib import Path

from meshnode.ingest.higress import HigressReader
from meshnode.ingest.reading import Reading

GOLDEN = Path(__file__).parents[2] / "golden" / "higress"
ALL = 1 << 30


def call(number: int, session: str = "s1") -> bytes:
    line = (GOLDEN / "plain.log").read_bytes().replace(b'"r1"', b'"r%d"' % number)
    return line.replace(b'\\"s1\\"', b'\\"%s\\"' % session.encode())


class Log:
    """A log in a directory, and a reader that goes on from its own position."""

    def __init__(self, directory: Path, session_key: str | None = None) -> None:
        self.path = directory / "access.log"
        self.reader = HigressReader(str(self.path), session_key)
        self.places: dict[bytes, bytes] = {}

    def write(self, *lines: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(b"".join(lines))

    def read(self, bytes_max: int = ALL) -> Reading:
        reading = self.reader.read(self.places, bytes_max)
        self.places |= reading.batch.places
        return reading

    def keys(self, bytes_max: int = ALL) -> list[str]:
        return [
            record.idem_key.removeprefix("higress:")
            for record in self.read(bytes_max).batch.records
        ]

    def rename(self, name: str) -> Path:
        return self.path.rename(self.path.with_name(name))
