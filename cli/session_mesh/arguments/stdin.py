"""Text from stdin, for what should not stand in argv."""

import sys

from meshnode.client.errors import UsageError


def on_terminal() -> bool:
    """Whether somebody types what comes on stdin."""
    return sys.stdin.isatty()


def read_text(chars_max: int, what: str) -> str:
    """Read so many characters at most; who sits at a terminal is asked for `what`.

    Raises UsageError for what is no text.
    """
    if on_terminal() and sys.stderr is not None:
        sys.stderr.write(f"type {what}, then Enter and Ctrl-D:\n")
        sys.stderr.flush()
    try:
        found = sys.stdin.read(chars_max)
        found.encode()  # in the C locale Python lets bytes in as lone surrogates
    except UnicodeError:
        raise UsageError("what came on stdin is not UTF-8", "send text in UTF-8") from None
    return found
