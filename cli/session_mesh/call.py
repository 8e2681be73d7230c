"""One call of the command line: its home, its wishes, its streams, and the way to a node.

Invariant: a verb is handed a Call and returns a View; it neither prints nor ends the process.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec
from msgspec.structs import replace

from meshnode.client.clock import wall_s
from meshnode.client.errors import MeshError, NoNodeError, SilentNodeError, UsageError
from meshnode.client.home import Home, home_at
from session_mesh.inside import is_inside
from session_mesh.output.escaping import escape
from session_mesh.output.render import Format, Streams, Style

if TYPE_CHECKING:
    from meshnode.client.inside import Inside
    from meshnode.client.mesh import MeshClient
    from meshnode.client.targets.targets import Selection, Wanted


GRPC_LEVEL = "GRPC_VERBOSITY"  # of what gRPC logs to stderr; read once, when it is loaded


@contextmanager
def _grpc_loaded_silent() -> Iterator[None]:
    """Let gRPC log nothing to a terminal unless its user wants it; no agent inherits that."""
    if GRPC_LEVEL in os.environ:
        yield
        return
    os.environ[GRPC_LEVEL] = "NONE"
    try:
        yield
    finally:
        del os.environ[GRPC_LEVEL]


class Reader(Protocol):
    """What a running node and the disk of a stopped one can both answer."""

    def list_sessions(
        self, selection: "Selection | None" = None, limit: int | None = None
    ) -> dict[str, Any]:
        """List sessions: `sessions` and `coverage`."""

    def nodes(self, labels: Mapping[str, str] | None = None) -> dict[str, Any]:
        """List members: `nodes` and `coverage`."""

    def member_name(self, node_id: str) -> str | None:
        """Return the name of a member, present or former."""

    def find(self, specialization: str) -> dict[str, Any]:
        """List specialists: `agents` and `coverage`."""

    def cost(
        self,
        by: Sequence[str] = (),
        since: str | None = None,
        until: str | None = None,
        tz: str = "",
        prices_at: str | None = None,
        of: tuple[str, str] = ("", ""),
        *,
        most: int = 0,
    ) -> dict[str, Any]:
        """Sum what the mesh has spent."""

    def events(self, wanted: "Wanted | None" = None, since: str | None = None) -> dict[str, Any]:
        """Return what has changed lately: `events` and `position`."""


class Call(msgspec.Struct, frozen=True):
    """What a verb is handed."""

    streams: Streams
    home_path: str | None = None
    output: Format | None = None
    quiet: bool = False
    verbose: bool = False

    def overridden(self, given: Mapping[str, Any]) -> "Call":
        """Return the call with what was said after the verb."""
        return replace(
            self,
            home_path=given["home"] or self.home_path,
            output=given["output"] or self.output,
            quiet=bool(given["quiet"] or self.quiet),
            verbose=bool(given["verbose"] or self.verbose),
        )

    @property
    def home(self) -> Home:
        """The home that the user means."""
        return home_at(self.home_path)

    @property
    def style(self) -> Style:
        """How output shall look."""
        return Style(self.output or "table", self.quiet)

    def now_s(self) -> float:
        """Seconds since 1970."""
        return wall_s()

    def mesh(self) -> "MeshClient":
        """A client of the node on this home; enter it."""
        with _grpc_loaded_silent():
            from meshnode.client.mesh import MeshClient  # noqa: PLC0415 - --help needs no gRPC

        client = MeshClient(self.home, on_wait=self._say_that_it_waits())
        client.on_call = self.streams.tell if self.verbose else None
        return client

    def _say_that_it_waits(self) -> "Callable[[float | None], None] | None":
        if not self.streams.err_is_terminal:
            return None

        def say(most_s: float | None) -> None:
            # What was ordered takes its time, and happens whoever waits.
            alone = "" if most_s is None else " alone"
            self.streams.tell(f"{self._waiting(most_s)}; Ctrl-C ends the wait{alone}")

        return say

    def say_once_that_many_wait(self) -> "Callable[[float | None], None] | None":
        """Return what says of many orders, each in a thread of its own, that the first waits."""
        if not self.streams.err_is_terminal:
            return None
        once = Lock()

        def say(most_s: float | None) -> None:
            if once.acquire(blocking=False):
                self.streams.tell(f"{self._waiting(most_s)}; Ctrl-C orders no further ones")

        return say

    def _waiting(self, most_s: float | None) -> str:
        if most_s is not None:
            return f"waiting up to {most_s:.0f} s for what comes of it"
        from meshnode.client.connection.silence import pid_of  # noqa: PLC0415 - as above

        return f"waiting for the node (pid {pid_of(self.home)}) to answer"

    def inside(self, patience_s: float | None = None) -> "Inside":
        """A client for the session that this process runs in; enter it."""
        with _grpc_loaded_silent():
            from meshnode.client.inside import Inside  # noqa: PLC0415 - as for mesh

        return Inside() if patience_s is None else Inside(patience_s=patience_s)

    def read(self, ask: "Callable[[Reader], dict[str, Any]]") -> dict[str, Any]:
        """Ask the running node, or the disk of one that does not run or answer, saying so.

        Inside a session the node is asked with the ticket, and no home is looked for.
        """
        if is_inside():
            with self.inside() as session:
                return ask(cast("Reader", session))  # what it cannot answer is not allowed there
        home = self.home
        try:
            with self.mesh() as mesh:
                return ask(mesh)
        except (NoNodeError, SilentNodeError) as error:
            if not home.initialised:
                raise
            why = error.message.partition(" on this home")[0]
        from meshnode.node.offline import OfflineMesh  # noqa: PLC0415 - large, rarely needed

        self.streams.tell(f"warning: {why}: this is what its disk remembers")
        with OfflineMesh(home) as mesh:
            if mesh.left_out:
                said = f"{mesh.left_out} rows of this node's ledger have no room in its feed"
                self.streams.tell(f"warning: {said}, and no figure counts them")
            return {**ask(mesh), "source": "disk"}

    def confirm(self, question: str) -> bool:
        """Ask on the terminal; True for yes."""
        self.streams.err.write(f"{escape(question)} [y/N] ")
        self.streams.err.flush()
        return sys.stdin.readline().strip().lower() in {"y", "yes"}

    def ask_first(
        self,
        question: str,
        warning: str,
        hint: str = "say --yes, since nobody can be asked here",
        *,
        yes: bool,
    ) -> None:
        """Ask before what is for good, unless `yes` has answered already.

        Raises MeshError for a no, and UsageError(warning, hint) where nobody can be asked.
        """
        if yes:
            return
        if not self.can_ask:
            raise UsageError(warning, hint)
        if not self.confirm(question):
            raise MeshError("nothing was changed")

    @property
    def can_ask(self) -> bool:
        """Whether somebody sits at a terminal."""
        return sys.stdin.isatty() and self.streams.err_is_terminal
