"""Starting a node in the background for a verb that needs one."""

from typing import Any

from meshnode.client.home import Home
from meshnode.node.main import up_detached
from meshnode.node.options import UpOptions


def start(home: Home, listen: str | None = None) -> dict[str, Any]:
    """Start a detached node with what its configuration says; returns its ready event."""
    return up_detached(home, UpOptions(listen=listen))
