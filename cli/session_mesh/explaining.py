"""How `usage --explain` reads: the records that count, then every line that had to do with them."""

from typing import Any

from session_mesh import words
from session_mesh.render import View


def explained(value: dict[str, Any]) -> View:
    """Lay out why a figure is what it is."""
    lines: list[str] = []
    for record in value["records"]:
        usage = record["usage"]
        mark = "counts" if record["counts"] else "counted until a later line"
        lines += [
            f"{record['key']}  {mark}",
            *words.described(
                [
                    ("  at", record["at"]),
                    ("  session", record["session"]),
                    ("  project", record["project"]),
                    ("  model", f"{record['model']}  ({record['tier']})"),
                    ("  input", str(usage["input"])),
                    ("  cache read", str(usage["cache_read"])),
                    ("  cache written", f"{usage['cache_write_5m']} + {usage['cache_write_1h']}"),
                    ("  output", f"{usage['output']}, of it reasoning {usage['reasoning']}"),
                    ("  cost then", f"{words.usd(record['cost_usd'])}  {record['price_source']}"),
                    ("  flags", ", ".join(record["flags"])),
                    ("  read in", f"{record['file']}, byte {record['offset']}"),
                ]
            ),
        ]
    for line in value["lines"]:
        output = "" if line["output"] is None else f" (output {line['output']})"
        lines.append(f"{line['file']}:{line['line']}  {line['fate']}{output}")
    if value["lines_more"]:
        lines.append(f"and {value['lines_more']} more lines")
    lines += [f"{file}  is gone; what was read of it stays counted" for file in value["files_gone"]]
    ids = [record["key"] for record in value["records"]]
    return View(value=value, human=tuple(lines), records="records", ids=ids)
