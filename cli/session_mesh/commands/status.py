"""`status`: the node of this home."""

from collections.abc import Sequence
from typing import Any

from meshnode.client.durations import rfc3339
from meshnode.client.words import WITHOUT_ROLE
from session_mesh.call import Call
from session_mesh.output import words
from session_mesh.output.render import View
from session_mesh.verbs import verb

MIB = 1 << 20


@verb("session-mesh status", "session-mesh status -o json")
def app(call: Call) -> View:
    """Describe the running node.

    Its mesh, its listeners, its links, and what troubles it.
    """
    from meshnode.client.commands import budgets  # noqa: PLC0415 - --help needs no gRPC

    with call.mesh() as mesh:
        value = mesh.status()
        value["budgets"] = [
            {name: one[name] for name in ("name", "state", "percent", "reason")}
            for one in budgets.budgets(mesh)["budgets"]
        ]
        own = (one["addresses"] for one in mesh.nodes()["nodes"] if one["self"])
        value |= {"clock": rfc3339(call.now_s()), "advertised": next(own, [])}
    return View(
        value=value,
        human=_described(value),
        ids=[value["node_id"]],
        notes=words.coverage_notes(value["coverage"]),
    )


def _described(value: dict[str, Any]) -> tuple[str, ...]:
    return words.described(
        [
            *(("ALARM", f"{one['detail']}: {one['fix']}") for one in value["alarms"]),
            ("node", f"{value['name']} ({value['node_id']})"),
            ("mesh", f"{value['mesh_name']} ({value['mesh_id']})"),
            ("role", value["role"] or f"none: this home {WITHOUT_ROLE}"),
            ("version", value["version"]),
            ("build", value["build"]),
            ("database", f"schema {value['schema']}" if value["schema"] else ""),
            ("process", value["pid"]),
            ("started", value["started_at"]),
            ("clock", value["clock"]),
            ("listens on", ", ".join(value["listen"])),
            ("advertises", ", ".join(value["advertised"])),
            ("admits on", value["enrolment"]),
            ("mDNS", value["mdns"]),
            ("other meshes", _others(value["other_meshes"])),
            ("nodes alive", value["nodes_alive"]),
            ("links", str(value["links"])),
            ("sessions", str(value["sessions"])),
            ("budgets", _budgets(value["budgets"])),
            ("feeds", _feeds(value["feeds_held"], value["feeds_wanted"])),
            ("event loop", f"{value['loop_lag_s'] * 1000:.0f} ms late at most, lately"),
            ("memory", f"{value['rss_bytes'] // MIB} MiB"),
            *((f"reads {one['source']}", _source(one)) for one in value["sources"]),
            *(("trouble", f"{one['peer']}: {one['reason']}") for one in value["troubles"]),
        ]
    )


def _others(said: str) -> str:
    return f"{said}; nothing to do" if said else ""


def _budgets(budgets: Sequence[dict[str, Any]]) -> str:
    pressed = [one for one in budgets if one["state"] != "ok"]
    named = "; ".join(f"{one['name']} {one['state']}: {one['reason']}" for one in pressed)
    count = f"{len(budgets)} set" if budgets else ""
    return f"{count}; {named}" if named else count


def _feeds(held: int, wanted: int) -> str:
    return f"{held} held, {wanted} on their way" if wanted else f"{held} held"


def _source(source: dict[str, Any]) -> str:
    return f"{source['path']}: {source['records']} records, {source['detail']}"
