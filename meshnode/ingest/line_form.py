"""The form of a template's lines: which fields stand behind the call, and in which order.

Invariant: a line of a known form says nothing but what the template wrote: no value behind its call
holds a quotation mark or an escape, so that none of them can be a sender's own field.
"""

from __future__ import annotations

import re

FORMS_MAX = 16  # then other forms are looked at each time
NAMES_MAX = 64  # in a form; a line with more is looked at each time
HEAD = b'{"ai_log":"'
_VALUE = rb'"[^"\\]*+"'
_TAIL = re.compile(rb'",(?:"[\w.-]++":%b,?+)++\}' % _VALUE)
_NAME = re.compile(rb'"([\w.-]++)":%b' % _VALUE)


class LineForm:
    """The form met last: nearly all lines of one gateway have it.

    FORMS_MAX forms are known at most. To make one takes a thousand times as long as to read a line,
    and senders whose quotation marks the template lets pass can think of new ones.
    """

    def __init__(self) -> None:
        self._tail: re.Pattern[bytes] | None = None
        self._known: dict[tuple[bytes, ...], re.Pattern[bytes]] = {}

    def has(self, line: bytes) -> bool:
        """Tell whether a line that is valid JSON is of this form."""
        if self._tail is None or (end := _end_of_call(line)) < 0:
            return False
        return line.find(b"\\", end) < 0 and self._tail.fullmatch(line, end) is not None

    def learn(self, line: bytes) -> None:
        """Take up the form of a line that was found plain, if it has one."""
        end = _end_of_call(line)
        if end < 0 or not _TAIL.fullmatch(line, end):
            return
        names = tuple(_NAME.findall(line, end))
        if len({*names, b"ai_log"}) <= len(names) or len(names) >= NAMES_MAX:
            return
        if names not in self._known and len(self._known) < FORMS_MAX:
            self._known[names] = _tail(names)
        self._tail = self._known.get(names, self._tail)


def _end_of_call(line: bytes) -> int:
    """Return where a call ends that stands first, -1 if none does.

    Within its escaped text each quotation mark has a backslash before it. So the first one that a
    comma and another one follow ends the text, or is its last character: then no form follows.
    """
    return line.find(b'","', len(HEAD)) if line.startswith(HEAD) else -1


def _tail(names: tuple[bytes, ...]) -> re.Pattern[bytes]:
    fields = b",".join(b'"%b":"[^"]*+"' % re.escape(name) for name in names)
    return re.compile(rb'",%b\}' % fields)
