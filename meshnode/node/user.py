"""Who runs this: by name, where the machine has one."""

from __future__ import annotations

import getpass
import os


def user_name() -> str:
    """Return the name of this user, `uid-N` for one without (`docker run -u N`).

    It is UTF-8, which `LOGNAME` need not be.
    """
    try:
        return os.fsencode(getpass.getuser()).decode(errors="replace")
    except (OSError, KeyError):
        return f"uid-{os.getuid()}"
