"""How far a verb has come that does the same many times: said on a terminal, once it takes long."""

from session_mesh.call import Call

PATIENCE_S = 1.0  # before the first word, and between two


class Progress:
    """Counts, and says so now and then; `total` is None where nobody knows it beforehand."""

    def __init__(self, call: Call, total: int | None, what: str = "entries are registered") -> None:
        self._call = call
        self._total = total
        self._what = what
        self._done = 0
        self._said_at_s = call.now_s()

    def note(self, done: int) -> None:
        """So many are done."""
        self._done = max(self._done, done)
        now_s = self._call.now_s()
        if self._call.streams.err_is_terminal and not 0 <= now_s - self._said_at_s < PATIENCE_S:
            self._said_at_s = now_s
            self._say()

    def stop(self) -> None:
        """Say, wherever that is read, how many of several are done although the rest is not."""
        if self._total is not None and self._total > 1:
            self._say()

    def _say(self) -> None:
        of = "" if self._total is None else f" of {self._total}"
        self._call.streams.tell(f"{self._done}{of} {self._what}")
