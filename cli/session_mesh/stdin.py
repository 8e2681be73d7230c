"""Text from stdin, for what should not stand in argv."""

import sys

from meshnode.client.errors import UsageError


def on_terminal() -> bool:
    """Whether somebody types what comes on stdin."""
    return sys.stdin.isatty()


def read_text(chars_max: int) -> str:
    """Read so many characters at most; raises UsageError for what is no text."""
    try:
        found = sys.stdin.read(chars_max)
        found.encode()  # in the C locale Python lets bytes in as lone surrogates
    except UnicodeError:
        raise UsageError("what came on stdin is not UTF-8", "send text in UTF-8") from None
    return found
