"""What of the command line is loaded first: Ctrl-C while the rest is ends it in order, too."""

import gc
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from session_mesh.output.render import Streams

STATUSLINE = "statusline"  # called several times a second: what is kept needs nothing else
INTERRUPTED = 130  # 128 + SIGINT, as a shell would report it
COLLECT_AT = 200_000  # new objects: what loading makes is no garbage, which Python looks for at 700


def main(arguments: Sequence[str] | None = None, streams: "Streams | None" = None) -> int:
    """Run the command line and return its exit code; without arguments, those of the process."""
    is_process = arguments is None
    if is_process:
        gc.set_threshold(COLLECT_AT)
    try:
        if is_process and sys.argv[1:] == [STATUSLINE]:
            from meshnode.client.clock import wall_s  # noqa: PLC0415 - for this alone
            from session_mesh.statusline.kept import is_answered  # noqa: PLC0415 - as above

            if is_answered(wall_s):
                return 0
        from session_mesh.dispatch import dispatch  # noqa: PLC0415 - most of what a start takes

        return dispatch(arguments, streams)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        if is_process:  # which ends: what it holds is gone with it, and not searched for garbage
            gc.freeze()
