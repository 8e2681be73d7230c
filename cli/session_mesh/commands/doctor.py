"""`doctor`: why a peer is not seen, and what to do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec.structs import asdict

from session_mesh.arguments.completing import nodes
from session_mesh.call import Call
from session_mesh.output.render import Listing, View
from session_mesh.verbs import verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meshnode.app.diagnosis.diagnosis import Check

PATIENCE_S = 1.0  # on a terminal, somebody who waits longer is told what for
MARKS = {True: "✓", False: "✗", None: "–"}  # noqa: RUF001 - a dash: neither good nor bad


@verb(
    "session-mesh doctor",
    "session-mesh doctor berta",
    "session-mesh doctor 192.0.2.7:7707 -o json",
)
def app(
    call: Call,
    peers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NODE|HOST:PORT", help="Else whoever is not seen.", autocompletion=nodes
        ),
    ] = None,
) -> View:
    """Explain why a peer is not seen, and what to do about it.

    Checks this home, its node and its clock, then each peer from the connection to the certificate.
    Exit code 1 when a check fails; -q prints the ids of those.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read once, when grpc is loaded
    from meshnode.node.doctor.doctor import examine  # noqa: PLC0415 - the composition root is large

    with _told_after_a_while(call):
        checks = examine(call.home, tuple(peers or ()))
    failed = [check for check in checks if check.ok is False]
    return View(
        value={"checks": [asdict(check) for check in checks]},
        human=_listing(checks),
        records="checks",
        ids=[check.id for check in failed],
        notes=_counted(checks, len(failed)) if failed else [],
        exit_code=1 if failed else 0,
    )


@contextmanager
def _told_after_a_while(call: Call) -> Iterator[None]:
    waiting = Timer(PATIENCE_S, call.streams.tell, ["asking nodes, for some seconds at most..."])
    waiting.daemon = True
    if call.streams.err_is_terminal:
        waiting.start()
    try:
        yield
    finally:
        waiting.cancel()


def _counted(checks: "Sequence[Check]", failed: int) -> list[str]:
    """Say how many failed, of those that could be made."""
    unmade = sum(check.ok is None for check in checks)
    rest = f"; {unmade} could not be made" if unmade else ""
    return [f"{failed} of {len(checks) - unmade} checks failed{rest}"]


def _listing(checks: "Sequence[Check]") -> Listing:
    width = max((len(check.id.partition(":")[0]) for check in checks), default=0)
    lines, said = [], set[str]()
    for check in checks:
        if check.ok is None and check.detail in said:
            continue  # "no node is running" need not be read six times
        said.add(check.detail)
        kind, _, peer = check.id.partition(":")
        is_named = check.detail.removeprefix("seed ").startswith(peer)
        about = "" if is_named else f"{peer}: "
        lines.append((MARKS[check.ok], f"{kind:<{width}}  {about}{check.detail}"))
        if check.fix:
            lines.append(("", f"{'':<{width}}  fix: {check.fix}"))
    return Listing(lines, indent=width + 2)
