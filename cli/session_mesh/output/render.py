"""Rendering, which comes last: a command returns a View, and this turns it into bytes.

Invariant: what was asked for goes to stdout and nothing else does; every word that came from the
mesh is escaped before a terminal sees it; JSON is JSON whatever the words are.
"""

import csv
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from io import TextIOWrapper
from typing import Any, Literal, TextIO

import msgspec

from meshnode.client.public import public
from session_mesh.output.escaping import SPELLED_OUT, encodable, escape, inert
from session_mesh.output.tables import (
    COLOURS,
    COLUMN_CHARS_MIN,
    GAP_CHARS,
    Lines,
    Table,
    write_table,
)
from session_mesh.output.writing import mend_streams

Format = Literal["table", "json", "yaml", "csv"]
ONE_CELL = frozenset({"labels", "attributes", "unpriced"})  # of a CSV: their keys are data
SPELLED = {"✓": "+", "✗": "x", "–": "-"}  # noqa: RUF001 - where a stream cannot carry marks
SGR = {"green": "\x1b[32m", "red": "\x1b[31m"}


class Listing(msgspec.Struct, frozen=True):
    """Sentences after a mark each, for people: wrapped on a terminal, and never cut."""

    items: Sequence[tuple[str, str]]  # mark, "" for what belongs to the item before; words
    indent: int = 0  # of the second line of a wrapped item


class View(msgspec.Struct, frozen=True):
    """What a command has to say: the value, and the same for people, for scripts and for tables."""

    value: dict[str, Any]
    human: Table | Listing | Lines | str  # a text is one line, whatever is in it
    records: str = ""  # the key of `value` whose items are the rows of a CSV; empty: itself
    ids: Sequence[str] | None = None  # what -q prints, without notes; None: all
    notes: Sequence[str] = ()  # for stderr, unless the output is JSON or YAML, which has them
    exit_code: int = 0
    keys: Sequence[str] = ()  # of each record's `key`: columns of a CSV that has no rows, too
    fields: Sequence[str] = ()  # of records that the verb makes: as `keys`


class Streams(msgspec.Struct, frozen=True):
    """Where output goes, and what may be done there."""

    out: TextIO
    err: TextIO
    out_is_terminal: bool = False
    err_is_terminal: bool = False
    colour: bool = False
    width: int = 80
    is_dumb: bool = False  # a terminal that takes characters and ends of lines alone

    @classmethod
    def of_process(cls) -> "Streams":
        """The streams that this process was started with.

        Where they are closed, there is nothing to read, nowhere to complain, and an answer that is
        not written is an error, as of `ls` and its like.
        """
        mend_streams()
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(errors=SPELLED_OUT)
        out_is_terminal = sys.stdout.isatty()
        is_dumb = os.environ.get("TERM") == "dumb"
        return cls(
            out=sys.stdout,
            err=sys.stderr,
            out_is_terminal=out_is_terminal,
            err_is_terminal=sys.stderr.isatty(),
            colour=out_is_terminal and not (is_dumb or os.environ.get("NO_COLOR")),
            width=shutil.get_terminal_size().columns,
            is_dumb=is_dumb,
        )

    @property
    def can_draw(self) -> bool:
        """Whether a picture on stdout can be drawn over itself."""
        return self.out_is_terminal and not self.is_dumb

    def tell(self, words: str) -> None:
        """Write a line to stderr."""
        self.complain(f"{escape(words)}\n")

    def complain(self, text: str) -> None:
        """Write to stderr what is escaped; one that takes nothing hides no answer or exit code."""
        try:
            self.err.write(text)
            self.err.flush()
        except OSError:
            if self.err is sys.stderr:  # which Python would flush at its end, and end with 120
                sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - as above


class Style(msgspec.Struct, frozen=True):
    """What the user asked output to be."""

    format: Format = "table"
    quiet: bool = False


def render(view: View, streams: Streams, style: Style | None = None) -> int:
    """Write a view to the streams and return its exit code."""
    style = style or Style()
    if style.format in {"table", "csv"} and not style.quiet:
        for note in view.notes:
            streams.tell(note)
    if style.quiet and view.ids is not None:
        _write(streams, "".join(f"{escape(one)}\n" for one in view.ids))
    elif style.format == "json":
        _write(streams, _json(view.value, streams))
    elif style.format == "yaml":
        _write(streams, _yaml(view.value))
    elif style.format == "csv":
        _write_csv(view, streams)
    else:
        _write_human(view.human, streams)
    return view.exit_code


def _json(value: dict[str, Any], streams: Streams) -> str:
    if streams.out_is_terminal:
        return json.dumps(public(value), indent=2, ensure_ascii=True) + "\n"
    return json.dumps(public(value), ensure_ascii=not _is_utf8(streams.out)) + "\n"


def _yaml(value: dict[str, Any]) -> str:
    import yaml  # noqa: PLC0415 - only who asks for YAML pays for its import

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    try:
        return yaml.dump(public(value), Dumper=dumper, sort_keys=False, allow_unicode=False)
    except UnicodeEncodeError:  # a lone surrogate, which the slower one spells out
        return yaml.dump(public(value), Dumper=yaml.SafeDumper, sort_keys=False)


def _is_utf8(stream: TextIO) -> bool:
    return (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "") == "utf8"


def _write(streams: Streams, text: str) -> None:
    streams.out.write(escape(text, keep="\n") if streams.out_is_terminal else encodable(text))
    streams.out.flush()


def _write_csv(view: View, streams: Streams) -> None:
    value = public(view.value)
    records = value[view.records] if view.records else [value]
    flat = [_flat(record) for record in records]
    names = list(dict.fromkeys(name for one in flat or [_blank(view)] for name in one))
    rows = [[record.get(name, "") for name in names] for record in flat]
    if streams.out_is_terminal:
        rows = [[escape(cell) for cell in row] for row in rows]
    else:  # Python's writer leaves a lone CR unquoted, and readers take it for the end of a row
        rows = [[encodable(cell, spell="\r") for cell in row] for row in rows]
    writer = csv.writer(streams.out, lineterminator="\n")
    writer.writerows([names, *rows] if names else ())
    streams.out.flush()


def _blank(view: View) -> dict[str, str]:
    from meshnode.client.blank import blank  # noqa: PLC0415 - only what is empty needs it

    record = public(blank(view.records)) | dict.fromkeys(view.fields)
    return _flat(record | {"key": dict.fromkeys(view.keys)} if view.keys else record)


def _flat(record: dict[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, item in record.items():
        if isinstance(item, dict) and key not in ONE_CELL:
            flat |= _flat(item, f"{prefix}{key}.")
        else:
            flat[prefix + key] = _cell(item)
    return flat


def _cell(item: object) -> str:
    match item:
        case None:
            return ""
        case str():
            return inert(item)
        case bool():
            return "true" if item else "false"
        case list() if all(isinstance(one, str) for one in item):
            return inert(";".join(item))
        case _:
            return json.dumps(item, ensure_ascii=False)


def _write_human(human: Table | Listing | Lines | str, streams: Streams) -> None:
    if isinstance(human, str | tuple):
        lines = human if isinstance(human, tuple) else (human,)
        _write(streams, "".join(f"{escape(line)}\n" for line in lines) if human else "")
    elif isinstance(human, Listing):
        streams.out.writelines(_listed(human, streams))
        streams.out.flush()
    elif not human.rows:
        streams.tell(human.empty)
    else:
        _write_table(human, streams)


def _write_table(table: Table, streams: Streams) -> None:
    """Write a table as wide as the terminal, and say what it lacks."""
    width = streams.width if streams.out_is_terminal else None
    lacking = write_table(table, streams.out, width, colour=streams.colour)
    _write(streams, "".join(f"{escape(line)}\n" for line in table.below))
    if lacking:
        streams.tell(lacking)


def _listed(listing: Listing, streams: Streams) -> Iterable[str]:
    room = max(streams.width - GAP_CHARS, 3 * COLUMN_CHARS_MIN)
    wrapper = textwrap.TextWrapper(room, break_on_hyphens=False)
    wrapper.subsequent_indent = " " * min(listing.indent, room // 3)
    for mark, words in listing.items:
        text = escape(words)
        lines = wrapper.wrap(text) if streams.out_is_terminal else []
        shown = mark if _is_utf8(streams.out) else SPELLED.get(mark, mark)
        colour = SGR.get(COLOURS.get(mark, ""), "") if streams.colour else ""
        head = f"{colour}{shown}\x1b[0m" if colour else shown or " "
        for place, line in enumerate(lines or [text]):
            yield f"{head if place == 0 else ' '} {line}\n"


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as the user shall see it."""

    code: str
    message: str
    hint: str = ""
    exit_code: int = 1
    details: str = field(default="", repr=False)  # a traceback, with --verbose only


def render_failure(failure: Failure, streams: Streams, style: Style) -> int:
    """Write an error to stderr, as words or as JSON, and return its exit code."""
    if style.format == "json":
        value = {"code": failure.code, "message": failure.message, "hint": failure.hint}
        streams.tell(json.dumps({"error": value}, ensure_ascii=True))
    else:
        red, plain = _marks(streams)
        hint = f"hint: {escape(failure.hint)}\n" if failure.hint else ""
        streams.complain(f"{red}error:{plain} {escape(failure.message)}\n{hint}")
    if failure.details:
        streams.complain(escape(failure.details, keep="\n"))
    return failure.exit_code


def _marks(streams: Streams) -> tuple[str, str]:
    if streams.err_is_terminal and not (streams.is_dumb or os.environ.get("NO_COLOR")):
        return "\x1b[31m", "\x1b[0m"
    return "", ""
