"""Text from stdin, for what should not stand in argv."""

import sys

from meshnode.client.errors import UsageError


def read_text(chars_max: int) -> str:
    """Read so many characters at most; raises UsageError for what is no text."""
    try:
        return sys.stdin.read(chars_max)
    except UnicodeDecodeError:
        raise UsageError("what came on stdin is not UTF-8", "send text in UTF-8") from None
