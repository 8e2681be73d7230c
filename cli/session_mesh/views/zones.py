"""The time zone of this machine's user, as days are cut by it."""

import os
import re

from meshnode.client.errors import UsageError
from session_mesh.views.amounts import Span

UTC = re.compile(r"(UTC|GMT)[-+]?0{1,2}", re.ASCII)  # as rules of POSIX write it
FILES = "/zoneinfo/"  # what is behind it in the path of a zone's file is its name


def own_zone() -> tuple[str, str]:
    """Name the zone; where it has no name UTC, and what is to be said of that, else ""."""
    said = os.environ.get("TZ", "")
    name = _name_of(said) if said else _of_machine()
    if name:
        return name, ""
    whose = f"TZ={said[:60]} is" if said else "what this machine has for a time zone is"
    return "UTC", f"{whose} no name such as Europe/Berlin: days are those of UTC; --tz names one"


def _name_of(said: str) -> str:
    """Read TZ, in which a colon may stand before the name or the file of a zone."""
    name = said.removeprefix(":")
    if UTC.fullmatch(name):
        return "UTC"
    if name.startswith("/"):
        name = os.path.realpath(name).rpartition(FILES)[2]
    try:
        _ = Span(tz=name).zone
    except UsageError:  # such as CET-1CEST,M3.5.0,M10.5.0/3, which are rules without a name
        return ""
    return name


def _of_machine() -> str:
    import tzlocal  # noqa: PLC0415 - where TZ says it nobody needs it

    try:
        return tzlocal.get_localzone_name() or ""
    except (LookupError, OSError, ValueError):  # files that mean nothing, or contradict each other
        return ""
