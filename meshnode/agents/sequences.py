"""What of typed bytes are keys of a line, and what are sequences, which begin with ESC.

Source: ECMA-48 (CSI, OSC, DCS) and xterm's control sequences. Invariant: of a sequence that has not
ended, a bounded number of bytes is kept.
"""

from __future__ import annotations

import re

SEQUENCE_BYTES_MAX = 4096  # then it is taken for keys
_CSI = rb"\[(?:M.{3}|\[.|(?!20[01]~)[0-?]*[ -/]*[@-~])"  # no paste: what it encloses is of a line
_TEXT = rb"[\]PX^_][^\x07\x1b\r\n]*"  # OSC, DCS and the like, of which no answer has two lines
_ESCAPE = rb"(?=\x1b)|\Z"  # the key itself
_ENDED = re.compile(
    rb"\x1b(?:" + _CSI + rb"|" + _TEXT + rb"(?:\x07|\x1b\\)|O.|[^\x1b\[\]PX^_O]|" + _ESCAPE + rb")",
    re.DOTALL,
)
_BEGUN = re.compile(
    rb"\x1b(?:\[(?:M.{0,2}|\[|[0-?]*[ -/]*)|" + _TEXT + rb"\x1b?|O)\Z",
    re.DOTALL,
)


class Sequences:
    """A terminal's sequences among keys, each in one piece or in several."""

    def __init__(self) -> None:
        self._begun = b""

    @property
    def is_amid(self) -> bool:
        """Whether one has not ended."""
        return bool(self._begun)

    def forget(self) -> None:
        """Take what has not ended for ended."""
        self._begun = b""

    def keys_of(self, chunk: bytes) -> bytes:
        """Return what of it are keys of a line; ESC with one more byte is none, nor is an arrow."""
        typed = self._begun + chunk
        found = _BEGUN.search(typed)
        at = found.start() if found else len(typed)
        if len(typed) - at > SEQUENCE_BYTES_MAX:
            at = len(typed)
        self._begun = typed[at:]
        return _ENDED.sub(b"", typed[:at])
