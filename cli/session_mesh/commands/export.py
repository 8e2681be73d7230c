"""`export`: what the mesh has spent, as a file for whoever reports on it."""

import csv
import io
import json
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from meshnode.client.durations import rfc3339
from meshnode.client.errors import ConflictError, UsageError
from meshnode.client.keys.keyfiles import take_name
from session_mesh.call import Call
from session_mesh.output import words
from session_mesh.output.escaping import encodable, inert
from session_mesh.output.render import View
from session_mesh.verbs import verb
from session_mesh.views.amounts import DAYS_MAX, MOST_MAX, Span, inexact, joined, unpriced_in

if TYPE_CHECKING:
    from session_mesh.call import Reader

COLUMNS = ("Sessions", "Input Tokens", "Output Tokens", "Cost (USD)")
CACHED = "Cached Tokens"  # a part of the input; last, since the monitor's reports have it not
STDOUT = "-"
ANOTHER = "name another file, or - for stdout"


@verb(
    "session-mesh export finops-report.json",
    "session-mesh export finops-report.csv --days 90",
    "session-mesh export - | jq .summary",
)
def app(
    call: Call,
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="Where to; - for stdout.")],
    form: Annotated[
        Literal["json", "csv"] | None,
        typer.Option("--format", help="Else as FILE ends; csv: FILE.model.csv and FILE.date.csv."),
    ] = None,
    days: Annotated[
        int, typer.Option("--days", min=1, max=DAYS_MAX, help="By date: so many, today included.")
    ] = 30,
    tz: Annotated[str, typer.Option("--tz", metavar="ZONE", help="Of days; UTC unless told.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace what is there.")] = False,
) -> View:
    """Write what the whole mesh has spent, by model since ever and by date lately, to a file.

    In the layout of the Higress monitor, whose input has cached tokens in it, unlike that of cost
    and usage; money is a decimal string, null where no price is known.
    """
    form = form or ("csv" if Path(file).suffix.lower() == ".csv" else "json")
    begin, _ = Span(days=days, tz=tz).bounds(call.now_s())
    files = {} if file == STDOUT else _files(Path(file), form)
    _check_places(files.values(), force=force)

    def ask(mesh: "Reader") -> dict[str, Any]:
        by_model = mesh.cost(("model",), most=MOST_MAX)
        return {"all": by_model, "lately": mesh.cost(("day",), begin, None, tz)}

    read = call.read(ask)
    by_model, by_date = read["all"], read["lately"]
    source = {"source": read["source"]} if "source" in read else {}
    by_date["groups"].sort(key=lambda group: str(group["key"]["day"]))
    report = {"generated_at": rfc3339(call.now_s()), **_report(by_model, by_date), **source}
    texts = {
        "": json.dumps(report, indent=2, ensure_ascii=True) + "\n",
        "model": _csv(("Model", *COLUMNS, CACHED), by_model, "model"),
        "date": _csv(("Date", *COLUMNS, "Models", CACHED), by_date, "day"),
    }
    notes = words.coverage_notes(by_model["coverage"])
    notes += [*unpriced_in(by_model), *inexact(by_date), *joined(by_model)]
    if file == STDOUT:
        whole = texts[""] if form == "json" else f"{texts['model']}\n{texts['date']}"
        return View(value=report, human=tuple(whole.splitlines()), notes=notes)
    for name, path in files.items():
        _write(path, texts[name], force=force)
    written = [str(path) for path in files.values()]
    said = tuple(f"wrote {path}" for path in written)
    return View(value={"files": written}, human=said, ids=written, notes=notes)


def _files(path: Path, form: str) -> dict[str, Path]:
    """Return which text goes to which file; raises UsageError for what names none."""
    if path.name in {"", ".."}:
        raise UsageError(f"{path} is a directory", ANOTHER)
    if form == "json":
        return {"": path}
    stem = path.with_suffix("") if path.suffix.lower() in {".csv", ".json"} else path
    return {name: stem.with_name(f"{stem.name}.{name}.csv") for name in ("model", "date")}


def _check_places(paths: Iterable[Path], *, force: bool) -> None:
    """Raise UsageError where something else than a file is, ConflictError for one not to replace.

    A file that took the place of a device would be everybody's trouble.
    """
    for path in paths:
        try:
            found = path.stat().st_mode
        except FileNotFoundError:
            found = stat.S_IFREG  # where a link leads nowhere yet, too
        except OSError as error:
            raise _unwritten(path, error) from error
        if not stat.S_ISREG(found):
            what = "a directory" if stat.S_ISDIR(found) else "no regular file"
            raise UsageError(f"{path} is {what}", ANOTHER)
        if not force and os.path.lexists(path):
            raise ConflictError(f"{path} exists", "add --force to replace it")


def _write(path: Path, text: str, *, force: bool) -> None:
    """Write a whole file or none, where links lead; raises ConflictError if one came meanwhile."""
    target = Path(os.path.realpath(path))
    whole = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        try:
            with whole.open("x", encoding="utf-8", newline="") as opened:
                opened.write(text)
                opened.flush()
                os.fsync(opened.fileno())
            place: Callable[[Path, Path], object] = os.replace if force else take_name
            place(whole, target)
        finally:
            with suppress(FileNotFoundError):
                whole.unlink()
    except FileExistsError as error:
        raise ConflictError(f"{path} exists", "add --force to replace it") from error
    except OSError as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> UsageError:
    said = error.strerror or error  # not its file, which is a draft's name
    return UsageError(f"cannot write {path}: {said}", ANOTHER)


def _report(by_model: Mapping[str, Any], by_date: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "summary": {
            "total_sessions": by_model["sessions"],
            "total_input_tokens": _sent(by_model["totals"]),
            "total_output_tokens": by_model["totals"]["output"],
            "total_cost_usd": by_model["cost_usd"],
            "usage": by_model["totals"],
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
        "usage": group["usage"],
    }


def _sent(usage: dict[str, int]) -> int:
    """Add up all tokens that were sent, cached ones included, as the monitor counts input."""
    return usage["input"] + words.cached(usage)


def _csv(heads: Sequence[str], answer: Mapping[str, Any], by: str) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(heads)
    for group in answer["groups"]:
        one = _amounts(group)
        cells = [one[name] for name in ("session_count", "total_input", "total_output")]
        row = [_cell(group["key"][by]), *cells, one["total_cost"] or ""]
        models = [_cell(", ".join(group["models"]))] if by == "day" else []
        writer.writerow([*row, *models, words.cached(group["usage"])])
    return out.getvalue()


def _cell(text: str) -> str:
    """Return a word of others as a cell that no spreadsheet computes."""
    return encodable(inert(text), spell="\r\n")
