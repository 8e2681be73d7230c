"""Where one node keeps everything: the layout of a home, and the checks before it is used.

Invariant: a home and its socket directory belong to the user alone (0700) and lie where nobody else
can put others in their place, or nothing is read. Links may lead to a home; it is none itself: what
was checked would not be what is used.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from meshnode.core.errors import MeshError, NotPermittedError, StorageError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SOCKET_PATH_BYTES_MAX = 90  # sun_path has 108; session sockets are a little longer than the node's
OWNER_ONLY = 0o700
PLAIN_BYTES_MAX = 64 << 20  # of one file of a home that is read whole; larger: OSError
DISKS_FAULT = {errno.EROFS, errno.ENOSPC, errno.EDQUOT}


class Home(msgspec.Struct, frozen=True):
    """Paths below one directory. Several homes make several nodes on one machine."""

    path: Path

    @property
    def genesis(self) -> Path:
        """The mesh this home belongs to."""
        return self.path / "genesis.bin"

    @property
    def certificates(self) -> Path:
        """DER certificates, in PEM: this node's CA, then its admitter's."""
        return self.path / "node.crt"

    @property
    def roots(self) -> Path:
        """Who the roots are by now, for what runs without a node."""
        return self.path / "roots.bin"

    @property
    def anchors(self) -> Path:
        """What a client of this node's own HTTPS certificate trusts; written by `up`."""
        return self.path / "mesh.pem"

    @property
    def node_key(self) -> Path:
        """The node's identity."""
        return self.path / "node.key"

    @property
    def operator_key(self) -> Path:
        """The identity that commands; absent in a home that only obeys."""
        return self.path / "operator.key"

    @property
    def operator_public(self) -> Path:
        """The public half, for the node: it never reads the private one."""
        return self.path / "operator.pub"

    @property
    def session_root(self) -> Path:
        """The secret that session keys derive from."""
        return self.path / "session-root.key"

    @property
    def handed_keys(self) -> Path:
        """What is known of the session keys that this home has made; never the keys."""
        return self.path / "keys"

    @property
    def root_key(self) -> Path:
        """The mesh's root, unless `init --root-out` put it elsewhere."""
        return self.path / "root.key"

    @property
    def selection(self) -> Path:
        """Which sessions `list` shows unless told otherwise; written by `load-config`."""
        return self.path / "selection.yaml"

    @property
    def config(self) -> Path:
        """What `up` reads unless told otherwise."""
        return self.path / "config.yaml"

    @property
    def prices(self) -> Path:
        """What tokens cost according to the user, unless the configuration names another file."""
        return self.path / "prices.yaml"

    @property
    def database(self) -> Path:
        """SQLite."""
        return self.path / "state.db"

    @property
    def beginning(self) -> Path:
        """Name, hints and control entries from founding or joining, should the database be lost."""
        return self.path / "beginning.bin"

    @property
    def joining(self) -> Path:
        """What a join was given, until all of it is in its place."""
        return self.path / "joining.bin"

    @property
    def authority(self) -> Path:
        """Roles, roots and what was revoked, should the database be lost."""
        return self.path / "authority.bin"

    @property
    def log(self) -> Path:
        """What a detached node writes."""
        return self.path / "node.log"

    @property
    def sessions(self) -> Path:
        """One directory a session."""
        return self.path / "sessions"

    @property
    def run(self) -> Path:
        """The 0700 directory of sockets and lock; outside the home if its path is too long.

        There it is where the link in the home leads, if that is there: see `link_run`.
        """
        inside = self.path / "run"
        if len(os.fsencode(inside)) <= SOCKET_PATH_BYTES_MAX - len("/node.sock"):
            return inside
        name = _prefix() + sha256(os.fsencode(self.path)).hexdigest()[:12]
        with suppress(OSError):
            linked = inside.readlink()
            if linked.name == name and linked.is_dir():  # else of a home that this is a copy of
                return linked
        base = os.environ.get("XDG_RUNTIME_DIR") or "/tmp"  # noqa: S108 - checked to be ours alone before use
        return Path(base) / name

    @property
    def is_moved(self) -> bool:
        """Whether `run` leads to the sockets of a longer path, where this home was before."""
        inside = self.path / "run"
        try:
            return self.run == inside and inside.readlink().name.startswith(_prefix())
        except OSError:  # it is no link
            return False

    @property
    def socket(self) -> Path:
        """Where the node answers its user."""
        return self.run / "node.sock"

    @property
    def lock(self) -> Path:
        """Held by the node that runs on this home."""
        return self.run / "node.lock"

    @property
    def initialised(self) -> bool:
        """Whether this home belongs to a mesh."""
        return self.genesis.exists()

    @property
    def lacks_genesis(self) -> bool:
        """Whether a member's files are here without the genesis: no join or founding leaves that.

        A home whose node has never run is not told from one whose founding was cut short.
        """
        is_left = self.roots.exists() or self.authority.exists()
        return is_left and not self.initialised and not self.joining.exists()


def home_at(path: str | None) -> Home:
    """Find the home: the argument, else SESSION_MESH_HOME, else the user's data directory.

    Raises UsageError for what can be none.
    """
    chosen = path or os.environ.get("SESSION_MESH_HOME")
    found = expanded(chosen) if chosen else _usual()
    try:
        found = found.absolute()
        is_taken = found.exists() and not found.is_dir()
    except OSError as error:  # the directory that we are in is gone, or it is another user's
        said = (error.strerror or str(error)).lower()
        raise UsageError(f"no home at {found}: {said}", "name another with --home") from None
    if is_taken:
        raise UsageError(f"the home {found} is a file", "name a directory with --home")
    if any("\ud800" <= one <= "\udfff" for one in str(found)):  # how Python keeps such bytes
        raise UsageError(f"the home is not UTF-8: {str(found)!a}", "name another with --home")
    return Home(found)


def expanded(path: str) -> Path:
    """Put a home where `~` or `~NAME` stands; raises UsageError if nobody has one by that."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        said = f"whose home directory is meant is not known: {path}"
        raise UsageError(said, "set HOME, or write it out") from None


def _usual() -> Path:
    import platformdirs  # noqa: PLC0415 - a node is told its home

    try:
        return platformdirs.user_data_path("session-mesh").expanduser()
    except RuntimeError:
        said = "this user has no home directory that is known"
        raise UsageError(said, "set HOME, or name a directory with --home") from None


def make_private(directory: Path) -> None:
    """Create a directory for the user alone, or check that it is one."""
    missing = [part for part in (directory, *directory.parents) if not part.exists()]
    for part in reversed(missing):
        try:
            part.mkdir(mode=OWNER_ONLY)
        except FileExistsError:
            continue  # made meanwhile, or a link to nowhere: the check says which
        except OSError as error:
            if error.errno in DISKS_FAULT:  # another home on it would not be better
                raise unwritten(part, error) from None
            raise NotPermittedError(
                f"cannot make the directory {part}: {(error.strerror or str(error)).lower()}",
                "name another with --home",
            ) from None
    check_private(directory)


def make_run(home: Home) -> None:
    """Create the directory of a home's sockets; its errors say why it is where it is."""
    try:
        make_private(home.run)
    except MeshError as error:
        if home.run.parent != home.path:
            why = f"sockets of {home.path} are there since its path is too long for sockets"
            others = "name a shorter --home, or another XDG_RUNTIME_DIR"
            error.hint = "; ".join(filter(None, [error.hint, f"{why}: {others}"]))
        raise


def link_run(home: Home) -> None:
    """Leave word where the sockets are: others may have another XDG_RUNTIME_DIR, or none."""
    run, link = home.run, home.path / "run"
    if run == link or (link.is_symlink() and link.readlink() == run):
        return
    fresh = home.path / "run.new"
    with suppress(OSError):  # a disk that takes nothing: found by those with the same variable
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(run)
        fresh.replace(link)


def unlink_run(home: Home) -> None:
    """Remove that word where the home has come from a longer path; its lock is held."""
    if home.is_moved:
        with suppress(OSError):  # a disk that takes nothing: the check says what is there
            home.run.unlink()


def _prefix() -> str:
    return f"session-mesh-{os.getuid()}-"


def read_plain(path: Path, bytes_max: int = PLAIN_BYTES_MAX) -> bytes:
    """Read a file of a home; raises OSError, also for a pipe, whose writer nobody waits for."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no plain file", str(path))
        content = file.read(bytes_max + 1)
    if len(content) > bytes_max:
        raise OSError(errno.EFBIG, f"it is larger than {bytes_max} bytes", str(path))
    return content


def unwritten(path: Path, error: OSError) -> MeshError:
    """Say why a file could not be written, and what helps."""
    said = f"cannot write {path}: {error.strerror}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageError(said, f"free some room: df -h {path.parent} shows it")
    if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        writable = "mount -o remount,rw, or its permissions"
        return NotPermittedError(said, f"make {path.parent} writable again: {writable}")
    return NotPermittedError(said)


def check_private(directory: Path) -> None:
    """Raise NotPermittedError unless the directory is the user's alone."""
    info = directory.lstat()
    if stat.S_ISLNK(info.st_mode):
        raise UsageError(
            f"{directory} is a link", f"name what it leads to: {os.path.realpath(directory)}"
        )
    if not stat.S_ISDIR(info.st_mode):
        raise UsageError(f"{directory} is not a directory", "move it away, or name another --home")
    if info.st_uid != os.getuid():
        raise NotPermittedError(f"{directory} belongs to another user", "name a --home of your own")
    if stat.S_IMODE(info.st_mode) & 0o077:
        raise NotPermittedError(
            f"{directory} is open to other users (mode {stat.S_IMODE(info.st_mode):o})",
            f"run: chmod 700 {directory}",
        )
    check_surroundings(directory.parent)


def check_all_private(paths: Iterable[Path], look: Callable[[Path], object]) -> None:
    """Look at each path that is there; raises what is wrong with one, or one error for several."""
    wrong: list[MeshError] = []
    for path in paths:
        if os.path.lexists(path):
            try:
                look(path)
            except MeshError as error:
                wrong.append(error)
    if len(wrong) == 1:
        raise wrong[0]
    if wrong:
        said = "; ".join(one.message for one in wrong)
        raise NotPermittedError(
            said, "; ".join(dict.fromkeys(one.hint for one in wrong if one.hint))
        )


def check_surroundings(directory: Path) -> None:
    """Raise NotPermittedError if anybody may replace what lies in the directory."""
    mode = directory.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise NotPermittedError(
            f"every user may replace what lies in {directory}", f"run: chmod o-w {directory}"
        )
