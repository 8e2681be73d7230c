"""What became of an order to a session, in the words of its receipt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from meshnode.core.commands.steers import AFTER

if TYPE_CHECKING:
    from meshnode.app.ports import Killing, Steered


class Done(msgspec.Struct, frozen=True):
    """What became of an order to a session."""

    outcome: str
    detail: str = ""
    processes: dict[str, Any] | None = None


ALREADY_ENDED = Done("applied", "already ended", {"found": 0, "gone": 0, "survivors": []})


def counted(killing: Killing) -> dict[str, Any]:
    """Return what became of a tree as receipts say it."""
    return {"found": killing.found, "gone": killing.gone, "survivors": list(killing.survivors)}


def are(count: int) -> str:
    """Say how many processes, up to the verb."""
    return "1 process is" if count == 1 else f"{count} processes are"


def landed(steered: Steered, mode: str) -> Done:
    """Say where a steer has come."""
    first = f"the agent was sent {steered.interrupted}; " if steered.interrupted else ""
    if steered.on_stdin:
        whom = "its inbox is followed too" if steered.followed else "nobody follows its inbox"
        return Done("delivered", f"{first}one line written to the agent's stdin; {whom}")
    if mode == AFTER and steered.behind:
        return Done("queued", f"in the agent's inbox, behind {steered.behind} that it has not done")
    if steered.followed:
        return Done("delivered", f"{first}handed to whoever follows the agent's inbox")
    return Done("queued", f"{first}in the agent's inbox, which nobody follows now")
