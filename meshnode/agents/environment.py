"""The environment an agent starts with: its caller's, without our secrets, with its own names.

Invariant: no key, invite, passphrase, home or foreign ticket of this mesh is inherited by an agent.
What is stripped goes by rule, so that a name that comes later is stripped too.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from meshnode.agents import tree

if TYPE_CHECKING:
    from collections.abc import Mapping

# Every name of ours goes: what an agent may know is set anew, and a ticket or an id that is there
# belongs to the session that our caller may itself run in.
WITHHELD = ("SESSION_MESH_", "SESSION_API_KEY")  # how names begin; SESSION_API_KEY_FILE goes too
TOLD = ("session_id", "agent_id", "node_id", "ticket")
LOCALE = "LC_CTYPE"  # which Python sets where it would be C (PEP 538)
ENV_START, ENV_END = -3, -2  # of /proc/PID/stat, from its end: fields 50 and 51 of 52
SECRET_MARKS = ("smk1_", "smj1_", "smt1_")  # anywhere in a value: `Bearer smk1_…` is as good


def uncoerced(environment: Mapping[str, str]) -> dict[str, str]:
    """Return a copy of this process's environment with the locale that our caller has given us.

    What we were started with still lies where the kernel has put it. /proc/self/environ would show
    the same, but to none that may not be dumped.
    """
    fields = tree.read("/proc/self/stat").rpartition(b")")[2].split()  # before it: any name
    if not fields or not int(fields[ENV_START]):  # the kernel does not say
        return dict(environment)
    start, end = int(fields[ENV_START]), int(fields[ENV_END])
    given = ctypes.string_at(start, end - start).decode(errors="surrogateescape").split("\0")
    locale = [(LOCALE, word.partition("=")[2]) for word in given if word.startswith(f"{LOCALE}=")]
    return {name: text for name, text in environment.items() if name != LOCALE} | dict(locale)


def agent_environment(
    base: Mapping[str, str], opened: Mapping[str, str], socket: str
) -> dict[str, str]:
    """Return a copy of `base` that is fit for the agent of a session that was opened.

    `opened` holds `session_id, agent_id, node_id, ticket`; `socket` is the node's.
    """
    kept = {
        name: value
        for name, value in base.items()
        if not name.startswith(WITHHELD) and not any(mark in value for mark in SECRET_MARKS)
    }
    return kept | {
        **{f"SESSION_MESH_{name.upper()}": opened[name] for name in TOLD},
        "SESSION_MESH_SOCKET": socket,
    }
