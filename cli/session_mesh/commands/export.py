"""`export`: what the mesh has spent, as a file for whoever reports on it."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from meshnode.client.durations import rfc3339
from meshnode.client.errors import ConflictError, UsageError
from session_mesh import words
from session_mesh.amounts import DAYS_MAX, Span, inexact, unpriced
from session_mesh.call import Call
from session_mesh.escaping import encodable, inert
from session_mesh.render import View
from session_mesh.verbs import verb

COLUMNS = ("Sessions", "Input Tokens", "Output Tokens", "Cost (USD)")
STDOUT = "-"


@verb(
    "session-mesh export finops-report.json",
    "session-mesh export finops-report.csv --format csv --days 90",
    "session-mesh export - | jq .summary",
)
def app(
    call: Call,
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="Where to; - for stdout.")],
    form: Annotated[
        Literal["json", "csv"],
        typer.Option("--format", help="csv writes FILE.model.csv and FILE.date.csv."),
    ] = "json",
    days: Annotated[
        int, typer.Option("--days", min=1, max=DAYS_MAX, help="By date: so many, today included.")
    ] = 30,
    tz: Annotated[str, typer.Option("--tz", metavar="ZONE", help="Of days; UTC unless told.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> View:
    """Write what the whole mesh has spent, by model since ever and by date lately, to a file.

    In the layout of the Higress monitor; money is a decimal string, null where no price is known.
    """
    begin, _ = Span(days=days, tz=tz).bounds(call.now_s())
    files = {} if file == STDOUT else _files(Path(file), form)
    if not force:
        _check_absent(files.values())
    by_model = call.read(lambda mesh: mesh.cost(("model",)))
    by_date = call.read(lambda mesh: mesh.cost(("day",), begin, None, tz))
    by_date["groups"].sort(key=lambda group: str(group["key"]["day"]))
    report = {"generated_at": rfc3339(call.now_s()), **_report(by_model, by_date)}
    texts = {
        "": json.dumps(report, indent=2, ensure_ascii=True) + "\n",
        "model": _csv(("Model", *COLUMNS), by_model, "model"),
        "date": _csv(("Date", *COLUMNS, "Models"), by_date, "day"),
    }
    notes = words.coverage_notes(by_model["coverage"])
    notes += [*map(unpriced, by_model["unpriced"]), *inexact(by_date)]
    if file == STDOUT:
        whole = texts[""] if form == "json" else f"{texts['model']}\n{texts['date']}"
        return View(value=report, human=tuple(whole.splitlines()), notes=notes)
    for name, path in files.items():
        _write(path, texts[name], force=force)
    written = [str(path) for path in files.values()]
    said = tuple(f"wrote {path}" for path in written)
    return View(value={"files": written}, human=said, ids=written, notes=notes)


def _files(path: Path, form: str) -> dict[str, Path]:
    """Return which text goes to which file."""
    if form == "json":
        return {"": path}
    stem = path.with_suffix("") if path.suffix.lower() in {".csv", ".json"} else path
    return {name: stem.with_name(f"{stem.name}.{name}.csv") for name in ("model", "date")}


def _check_absent(paths: Iterable[Path]) -> None:
    for path in paths:
        if os.path.lexists(path):
            raise ConflictError(f"{path} exists", "add --force to replace it")


def _write(path: Path, text: str, *, force: bool) -> None:
    """Write a whole file or none; raises ConflictError for one that came meanwhile."""
    whole = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with whole.open("x", encoding="utf-8", newline="") as opened:
                opened.write(text)
                opened.flush()
                os.fsync(opened.fileno())
            place: Callable[[Path, Path], None] = os.replace if force else os.link
            place(whole, path)
        finally:
            with suppress(FileNotFoundError):
                whole.unlink()
    except FileExistsError as error:
        raise ConflictError(f"{path} exists", "add --force to replace it") from error
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error  # not its file, which is a draft's name
        raise UsageError(f"cannot write {path}: {said}", "name another file") from error


def _report(by_model: Mapping[str, Any], by_date: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "summary": {
            "total_sessions": by_model["sessions"],
            "total_input_tokens": _sent(by_model["totals"]),
            "total_output_tokens": by_model["totals"]["output"],
            "total_cost_usd": by_model["cost_usd"],
        },
        "by_model": {one["key"]["model"]: _amounts(one) for one in by_model["groups"]},
        "by_date": {
            one["key"]["day"]: {**_amounts(one), "models": one["models"]}
            for one in by_date["groups"]
        },
        "unpriced": by_model["unpriced"],
        "price_source": by_model["price_source"],
        "coverage": by_model["coverage"],
    }


def _amounts(group: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "session_count": group["sessions"],
        "total_input": _sent(group["usage"]),
        "total_output": group["usage"]["output"],
        "total_reasoning": group["usage"]["reasoning"],
        "total_cost": group["cost_usd"],
    }


def _sent(usage: Mapping[str, int]) -> int:
    """Add up all tokens that were sent, cached ones included, as the monitor counts input."""
    names = ("input", "cache_read", "cache_write_5m", "cache_write_1h")
    return sum(usage[name] for name in names)


def _csv(heads: Sequence[str], answer: Mapping[str, Any], by: str) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(heads)
    for group in answer["groups"]:
        one = _amounts(group)
        cells = [one[name] for name in ("session_count", "total_input", "total_output")]
        row = [_cell(group["key"][by]), *cells, one["total_cost"] or ""]
        writer.writerow([*row, _cell(", ".join(group["models"]))] if by == "day" else row)
    return out.getvalue()


def _cell(text: str) -> str:
    """Return a word of others as a cell that no spreadsheet computes."""
    return encodable(inert(text), spell="\r\n")
