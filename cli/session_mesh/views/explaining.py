"""How `usage --explain` reads: records and how their money is made, then the lines behind them."""

from typing import Any

from session_mesh.output import words
from session_mesh.output.render import View
from session_mesh.views.amounts import unpriced_in


def explained(value: dict[str, Any]) -> View:
    """Lay out why a figure is what it is."""
    lines: list[str] = []
    for record in value["records"]:
        lines += _record(record)
    if value["records_more"]:
        lines.append(f"and {value['records_more']} more responses with their lines")
    if "total" in value:
        lines += _total(value["total"])
    for line in value["lines"]:
        output = "" if line["output"] is None else f" (output {line['output']})"
        lines.append(f"{line['file']}:{line['line']}  {line['fate']}{output}")
    if value["lines_more"]:
        lines.append(f"and {value['lines_more']} more lines")
    lines += [f"{file}  is gone; what was read of it stays counted" for file in value["files_gone"]]
    ids = [record["key"] for record in value["records"]]
    return View(value=value, human=tuple(lines), records="records", ids=ids)


def _record(record: dict[str, Any]) -> list[str]:
    usage = record["usage"]
    thought = words.count(usage["reasoning"])
    mark = "counts" if record["counts"] else "counted until a later line"
    return [
        f"{record['key']}  {mark}",
        *words.described(
            [
                ("  at", record["at"]),
                ("  session", record["session"]),
                ("  project", record["project"]),
                ("  model", f"{record['model']}  ({record['tier']})"),
                ("  input", words.count(usage["input"])),
                ("  cache read", words.count(usage["cache_read"])),
                (
                    "  cache written",
                    " + ".join(words.count(usage[f"cache_write_{of}"]) for of in ("5m", "1h")),
                ),
                ("  output", f"{words.count(usage['output'])}, of it reasoning {thought}"),
                ("  cost then", f"{words.usd(record['cost_usd'])}  {record['price_source']}"),
                ("  flags", ", ".join(record["flags"])),
                _origin(record),
            ]
        ),
        *_price(record["price"], record["cost_usd"]),
    ]


def _origin(record: dict[str, Any]) -> tuple[str, str]:
    """Say where it is from, if that is known: an early version noted no file."""
    if record["file"]:
        return "  read in", f"{record['file']}, byte {record['offset']}"
    return "  read in", "no file: reported by its agent" if record["source"] == "report" else ""


def _price(price: dict[str, Any] | None, then_usd: str | None) -> list[str]:
    """Multiply out what it costs; say so if that is no longer what was kept."""
    if price is None:
        return ["  no price is known: its tokens are not in the money"]
    parts = [(one, words.count(one["count"]), _rate(one)) for one in price["parts"]]
    wide = max((len(number) for _, number, _ in parts), default=0)
    rates = max((len(rate) for *_, rate in parts), default=0)
    lines = [
        f"    {one['what']:<14}  {number:>{wide}} x {rate:<{rates}} = ${one['cost_usd']}"
        for one, number, rate in parts
    ]
    now = "" if price["cost_usd"] == then_usd else ", no longer what it cost then"
    tier = ", as standard: it has no price of this tier" if price["as_standard"] else ""
    lines.append(f"    ${price['cost_usd']} by {price['source']}, {price['matched']}{tier}{now}")
    return lines


def _rate(part: dict[str, Any]) -> str:
    million = part.get("usd_per_million")
    return f"${part['usd_each']} each" if million is None else f"${million} a million"


def _total(total: dict[str, Any]) -> list[str]:
    counted = (
        f"{words.count(total['records'])} responses, {words.count(total['totals']['total'])} tokens"
    )
    return [f"total  {counted}, {words.usd(total['cost_usd'])}", *unpriced_in(total)]
