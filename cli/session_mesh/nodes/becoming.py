"""`up` in the foreground: the command line gives way to the node.

A node runs for months; what it takes to parse a command line (8 MiB of it) shall not stay with it.
So `up` replaces its own process, keeping pid (but see `meshnode.node.init`), terminal and streams.
"""

import os
import signal
import sys
from typing import NoReturn

INTERRUPTED = 130  # as a shell says it


def become_node(told: str) -> NoReturn:
    """Replace this process with a node that was told this."""
    from meshnode.node.init import TO_STOP, become  # noqa: PLC0415 - see `main`
    from meshnode.node.main import without_secrets  # noqa: PLC0415 - as above

    argv = [sys.executable, "-P", "-m", "session_mesh.nodes.becoming", told]
    heeded = (*TO_STOP, signal.SIGTSTP, signal.SIGCONT)
    become(argv, without_secrets(os.environ), heeded)


def main() -> int:
    """Be the node; returns its exit code. Ctrl-C while it is loaded ends it without more words."""
    try:
        return _serve()
    except KeyboardInterrupt:
        return INTERRUPTED


def _serve() -> int:
    from meshnode.client.errors import MeshError  # noqa: PLC0415 - may be interrupted, as all here
    from meshnode.node.configuration.options import told_from  # noqa: PLC0415 - as above
    from meshnode.node.main import up  # noqa: PLC0415 - as above

    home, options = told_from(sys.argv[1])
    try:
        return up(home, options)
    except MeshError as error:
        from session_mesh.output.render import (  # noqa: PLC0415 - a node that runs renders nothing
            Failure,
            Streams,
            Style,
            render_failure,
        )

        failure = Failure(error.code, error.message, error.hint, error.exit_code)
        style = Style("json" if options.json_ready else "table", quiet=False)
        return render_failure(failure, Streams.of_process(), style)


if __name__ == "__main__":
    sys.exit(main())
