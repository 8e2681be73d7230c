"""Bringing a node up: in the foreground, or detached from the caller's terminal."""

from __future__ import annotations

import gc
import json
import logging
import os
import select
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from meshnode.client.home import Home, make_private
from meshnode.client.stdout import silence_stdout
from meshnode.core.errors import MeshError, error_of
from meshnode.node.configuration.options import UpOptions, told_of
from meshnode.node.loading import no_collection

if TYPE_CHECKING:
    from collections.abc import Mapping

READY_WAIT_S = 20.0
COLLECT_AT = 700  # new objects, as Python does: whoever waits for more, as commands do, ends soon
_log = logging.getLogger("session_mesh.node")


def up(home: Home, options: UpOptions) -> int:
    """Serve in the foreground until SIGTERM, SIGINT, SIGHUP or `down`; returns the exit code."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read once, when grpc is loaded
    with no_collection():
        from meshnode.node.serving import serve  # noqa: PLC0415 - loads grpc: not for up --detach

    def tell(event: dict[str, Any]) -> None:
        try:
            print(json.dumps(event) if options.json_ready else ready_text(event), flush=True)  # noqa: T201 - the line that `up` promises
        except OSError as error:
            silence_stdout()
            _log.warning(
                "the node is up; the line that says so could not be written: %s", error.strerror
            )

    gc.set_threshold(COLLECT_AT)
    return serve(home, options, tell, on_terminal=True)


def ready_text(event: dict[str, Any]) -> str:
    """Say in one line that a node is up."""
    text = f"{event['name']} is up in mesh {event['mesh_name']}, listening on {event['listen']}"
    if event["http"]:
        text += f"; HTTP on {event['http']}"
    if event.get("founded"):
        text += "; this is a mesh of one: session-mesh invite lets another machine in"
    return text


def up_detached(home: Home, options: UpOptions) -> dict[str, Any]:
    """Start a node in the background; returns its ready event, raises what it failed with."""
    make_private(home.path)
    told = told_of(home, options)
    with subprocess.Popen(  # it ends as soon as it has made the node, which is nobody's child
        [sys.executable, "-P", "-m", "meshnode.node.detached"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
        env=without_secrets(os.environ),
    ) as process:
        try:
            answer = _answer(process, told.encode())
        finally:
            if process.poll() is None:
                process.returncode = 0  # it hangs: leaving the block must not wait for it
    if "error" in answer:
        raise error_of(answer["error"])
    return answer


def _answer(process: subprocess.Popen[bytes], told: bytes) -> dict[str, Any]:
    if process.stdin is None or process.stdout is None:
        raise MeshError("no pipe to the new node could be made")
    with suppress(BrokenPipeError):  # it has ended already: its silence is the answer
        process.stdin.write(told)
        process.stdin.close()
    readable, _, _ = select.select([process.stdout], [], [], READY_WAIT_S)
    if not readable:
        raise MeshError(
            f"the node is not ready after {READY_WAIT_S:g} s, and goes on trying",
            "session-mesh status says when it is; node.log in its home says more",
        )
    line = process.stdout.readline()
    if not line:
        raise MeshError("the node did not come up", "session-mesh up shows why, in the foreground")
    answer: dict[str, Any] = json.loads(line)
    return answer


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without keys, invites and passphrases: a node needs none."""
    secret = ("SESSION_API_KEY", "SESSION_MESH_INVITE", "SESSION_MESH_ROOT_PASSPHRASE")
    return {name: value for name, value in environment.items() if not name.startswith(secret)}
