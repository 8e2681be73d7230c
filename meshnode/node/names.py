"""What things are called here: who runs this, the node, and what may be a name at all."""

from __future__ import annotations

import getpass
import os
import re
import socket

from meshnode.core.errors import UsageError
from meshnode.core.membership.genesis import NAME_CHARS_MAX


def user_name() -> str:
    """Return the name of this user, `uid-N` for one without (`docker run -u N`).

    It is UTF-8, which `LOGNAME` need not be.
    """
    try:
        return os.fsencode(getpass.getuser()).decode(errors="replace")
    except (OSError, KeyError):
        return f"uid-{os.getuid()}"


def default_node_name() -> str:
    """Return this machine's name, shortened to what a node may be called."""
    host = socket.gethostname().partition(".")[0]
    return re.sub(r"[^\w.-]", "-", host)[:NAME_CHARS_MAX] or "node"


def checked_name(name: str) -> str:
    """Accept a name for a node or a mesh; raises UsageError."""
    if not re.fullmatch(r"[\w.-]+", name) or len(name) > NAME_CHARS_MAX:
        raise UsageError(
            f"not a name: {name[:80]!r}",
            f"use letters, digits, dots, dashes and underscores, at most {NAME_CHARS_MAX}",
        )
    return name
