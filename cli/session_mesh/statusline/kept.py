"""What a status line is given, and the figures that those of a home have had lately.

Claude Code calls several times a second, so whatever was found is kept in a file for some seconds,
and a line is made of that before any verb is loaded. Invariant: what is kept is a copy of what the
ledger and the node know; if it is lost, or is no such file, they are asked again.
"""

import json
import os
import select
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from math import isfinite

from meshnode.client.clock import steady_s
from session_mesh.statusline.line import COUNT_MAX, Figures, composed, number, said, transcript_in

NAME = "statusline.json"  # in a home; for agents inside sessions, beside the socket of its node
FORM = 1  # of the file; of another: begun anew
DOCUMENT_BYTES_MAX = 256 << 10  # of what is given; Claude Code writes some 2 KiB. Larger: refused
GIVEN_S = 1.0  # to give it; longer: refused
KEPT_BYTES_MAX = 256 << 10  # larger: begun anew
SESSIONS_MAX = 64  # kept, those that were asked for last
SOON_S = 1.0  # between two looks at one session while its transcript grows
LASTS_S = 10.0  # what is kept, while it does not
SILENT_S = 30.0  # in which a node that did not answer is not asked again
AT_MAX = 1e11  # seconds since 1970; more: begun anew
TODAY_S = 300.0  # in which the sums of a day are told, though they could not be read again
OF_A_DAY = ("today", "mesh_today")
NO_HOME: Figures = {"usage_read": False}  # what is known then


@cache  # stdin is read once, by whoever needs it first
def given() -> tuple[bytes, str]:
    """Return what came on stdin, and what is wrong with that, or nothing."""
    try:
        if os.isatty(0):
            return b"", "stdin is a terminal"
        return _read_all()
    except OSError:
        return b"", "stdin is closed"


def _read_all() -> tuple[bytes, str]:
    parts: list[bytes] = []
    size = 0
    until_s = steady_s() + GIVEN_S  # of all pieces
    while size <= DOCUMENT_BYTES_MAX:
        if not select.select([0], [], [], max(until_s - steady_s(), 0))[0]:
            return b"", f"stdin did not end within {GIVEN_S:.0f} s"
        part = os.read(0, DOCUMENT_BYTES_MAX)
        if not part:
            return b"".join(parts), "" if size else "stdin is empty"
        parts.append(part)
        size += len(part)
    return b"", f"stdin has more than {DOCUMENT_BYTES_MAX >> 10} KiB"


def document() -> tuple[Figures, str]:
    """Return the JSON object that came on stdin, and what is wrong with that, or nothing."""
    raw, trouble = given()
    if trouble:
        return {}, trouble
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return {}, "stdin is not JSON"
    return (found, "") if isinstance(found, dict) else ({}, "stdin is no JSON object")


def seen(document: Figures) -> list[int] | None:
    """Return what changes with the transcript of a session; None where there is none."""
    try:
        found = os.stat(transcript_in(document) or "")
    except (OSError, ValueError):
        return None
    return [found.st_ino, found.st_size, found.st_mtime_ns]


def read(path: str) -> Figures:
    """Return what is kept: `sessions` by id and `mesh`, perhaps empty."""
    empty: Figures = {"form": FORM, "sessions": {}, "mesh": {}}
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return empty
    try:
        is_ours = os.fstat(file).st_uid == os.getuid()
        found = json.loads(os.read(file, KEPT_BYTES_MAX)) if is_ours else None
    except (OSError, ValueError, RecursionError):
        return empty
    finally:
        os.close(file)
    if not isinstance(found, dict) or found.get("form") != FORM:
        return empty
    sessions, mesh = found.get("sessions"), found.get("mesh")
    if not isinstance(sessions, dict):
        return empty
    parts = [part for part in (mesh, *sessions.values()) if part != {}]
    return found if all(map(_is_part, parts)) else empty


def _is_part(part: object) -> bool:
    """Tell whether something is what is kept of the mesh, or of a session."""
    if not isinstance(part, dict):
        return False
    lasts_s, at = part.get("lasts_s", LASTS_S), part.get("at")
    moments = ((at, AT_MAX), (part.get("read_at", at), AT_MAX), (lasts_s, SILENT_S))
    return _are_figures(part.get("figures")) and all(
        number(moment, most) is not None for moment, most in moments
    )


def _are_figures(figures: object) -> bool:
    """Tell whether a line can be made of figures, whoever has written them."""
    return (
        isinstance(figures, dict)
        and figures.keys() <= KNOWN.keys()
        and all(figure is None or KNOWN[name](figure) for name, figure in figures.items())
    )


def _is_flag(figure: object) -> bool:
    return isinstance(figure, bool)


def _is_count(figure: object) -> bool:
    return isinstance(figure, int) and number(figure, COUNT_MAX) is not None


def _is_usd(figure: object) -> bool:
    try:
        return isinstance(figure, str) and isfinite(float(figure))
    except ValueError:
        return False


def _is_sum(figure: object) -> bool:
    return (
        isinstance(figure, dict)
        and (figure.get("cost_usd") is None or _is_usd(figure["cost_usd"]))
        and _is_flag(figure.get("unpriced"))
    )


def _is_mesh_sum(figure: object) -> bool:
    return (
        isinstance(figure, dict)
        and _is_sum(figure)
        and all(_is_count(figure.get(name)) for name in ("nodes_heard", "nodes_known"))
    )


def _are_budgets(figure: object) -> bool:
    return isinstance(figure, list) and all(
        isinstance(one, dict)
        and all(isinstance(one.get(name), str) for name in ("name", "state"))
        and all(_is_count(one.get(name)) for name in ("percent", "held"))
        for one in figure
    )


KNOWN: dict[str, Callable[[object], bool]] = {  # figures that are kept, if they are not None
    "usage_read": _is_flag,
    "today": _is_sum,
    "session_cost_usd": _is_usd,
    "session_cost_source": lambda figure: figure in ("ledger", "claude"),
    "mesh_today": _is_mesh_sum,
    "alive_sessions": _is_count,
    "more_alive": _is_flag,
    "budgets": _are_budgets,
    "coverage": lambda figure: isinstance(figure, dict),
}


def write(path: str, kept: Figures) -> None:
    """Keep figures, of the last sessions; where that cannot be done, nothing is kept.

    What lies in the way of the new file goes: opening a pipe would wait for who reads it.
    """
    newest = list(kept["sessions"].items())[-SESSIONS_MAX:]
    new = f"{path}.new"
    with suppress(OSError):
        with suppress(FileNotFoundError):
            os.unlink(new)
        file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, json.dumps(kept | {"sessions": dict(newest)}).encode())
        finally:
            os.close(file)
        os.replace(new, path)


def lasting(part: Figures, now_s: float, lasts_s: float = LASTS_S) -> Figures | None:
    """Return the figures of what is kept, if they were asked for lately, and today."""
    at = part.get("at", 0)
    holds = 0 <= now_s - at < part.get("lasts_s", lasts_s) and at >= midnight_s(now_s)
    return part["figures"] if part and holds else None


def read_at(part: Figures) -> float:
    """Return when the figures of a part were read: if not when they were asked for, before."""
    asked_at = float(part.get("at", 0))
    return float(part.get("read_at", asked_at))


def told(part: Figures, now_s: float) -> Figures:
    """Return the figures of a part; the sums of a day only if they are of today, and not old."""
    figures: Figures = part.get("figures", {})
    moment = read_at(part)
    if midnight_s(now_s) <= moment and 0 <= now_s - moment <= TODAY_S:
        return figures
    return {name: figure for name, figure in figures.items() if name not in OF_A_DAY}


def midnight_s(now_s: float) -> float:
    """Return when today began for this user."""
    today = time.localtime(now_s)
    return time.mktime((*today[:3], 0, 0, 0, 0, 0, -1))


def key_of(document: Figures) -> str:
    """Return what the figures of a session are kept under."""
    return f"{said(document)['session_id'] or ''} {transcript_in(document) or ''}"


def of_session(kept: Figures, document: Figures, now_s: float) -> Figures | None:
    """Return the kept figures of a session, if they hold still."""
    part = kept["sessions"].get(key_of(document), {})
    return lasting(part, now_s, LASTS_S if part.get("seen") == seen(document) else SOON_S)


def told_of(kept: Figures, document: Figures, now_s: float) -> Figures:
    """Return what a line tells of what is kept, of the mesh and of a session."""
    own: Figures = kept["sessions"].get(key_of(document), {})
    return told(kept["mesh"], now_s) | told(own, now_s)


def place(environment: Mapping[str, str]) -> str:
    """Return where figures are kept for who names no home; "" if only the verb knows."""
    if environment.get("SESSION_MESH_TICKET", "").strip():
        socket = environment.get("SESSION_MESH_SOCKET", "")
        return os.path.join(os.path.dirname(socket), NAME) if os.path.isabs(socket) else ""
    if home := environment.get("SESSION_MESH_HOME"):
        return os.path.join(os.path.expanduser(home), NAME)
    if sys.platform != "linux":
        return ""
    data = environment.get("XDG_DATA_HOME", "").strip() or "~/.local/share"
    return os.path.join(os.path.expanduser(data), "session-mesh", NAME)


def has_colour(environment: Mapping[str, str]) -> bool:
    """Tell whether to colour: Claude Code shows colours, though what it reads is no terminal."""
    return not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def _kept_at(path: str, document: Figures, now_s: float) -> Figures | None:
    """Return what is kept of the mesh and of a session; None if some of it is to be asked for."""
    if path and not os.path.exists(os.path.dirname(path)):
        return dict(NO_HOME)
    kept = read(path)
    if of_session(kept, document, now_s) is None or lasting(kept["mesh"], now_s) is None:
        return None
    return told_of(kept, document, now_s)


def is_answered(now_s: Callable[[], float]) -> bool:
    """Print the line if all that is in it is kept; otherwise the verb is to be loaded."""
    asked, trouble = document()
    if trouble or sys.stdout is None:
        return False
    try:
        found = _kept_at(place(os.environ), asked, now_s())
        if found is None:
            return False
        line = composed(said(asked) | found, colour=has_colour(os.environ))
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return False  # of a stream, or of a file that somebody else has written
    return True
