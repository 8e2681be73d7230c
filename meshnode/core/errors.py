"""Every failure that a user may meet, by whose fault it is and what to do next.

Invariant: an error that crosses a process carries `code`, `message` and `hint`, and nothing else:
no traceback, no secret. The exit code belongs to the class, so the CLI and the tests agree by name.
"""


class MeshError(Exception):
    """Something failed; `message` says what, `hint` says what to do."""

    code = "failed"
    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(MeshError):
    """The caller's words are off: a flag, a config key, a malformed id. Nothing changed."""

    code = "usage"
    exit_code = 2


class NotFoundError(MeshError):
    """No such session, agent, node or file. Nothing changed."""

    code = "not_found"
    exit_code = 3


class NotAuthenticatedError(MeshError):
    """No key, or a key that proves nothing here. Nothing changed."""

    code = "not_authenticated"
    exit_code = 4


class NotPermittedError(MeshError):
    """The key is genuine and does not allow this. Nothing changed."""

    code = "not_permitted"
    exit_code = 5


class UnreachableError(MeshError):
    """Nobody can be reached, or nobody answers."""

    code = "unreachable"
    exit_code = 6


class NoAnswerError(UnreachableError):
    """It was sent, and no answer came. Whether anything changed is not known."""

    code = "timeout"


class ExpiredError(MeshError):
    """It came too late. Nothing changed."""

    code = "expired"
    exit_code = 6


class ConflictError(MeshError):
    """It exists already, is in use, or its session has ended. Nothing changed."""

    code = "conflict"
    exit_code = 7


class RefusedError(MeshError):
    """The target understood and said no. Nothing changed."""

    code = "refused"
    exit_code = 8


class ExhaustedError(RefusedError):
    """As many as there may be are there already. Nothing changed; later it may work."""

    code = "too_many"


class ClockError(RefusedError):
    """The node's own clock cannot be believed. Nothing changed; later it may work."""

    code = "clock"


class DamagedError(MeshError):
    """Our own disk holds something that we did not write like that. Nothing was overwritten."""

    code = "damaged"


class StorageError(MeshError):
    """Our own disk takes nothing. What was to be written waits in memory, or was refused whole."""

    code = "storage"


class StaleError(MeshError):
    """The command names a session start or a journal that is no more. Nothing changed."""

    code = "stale"
    exit_code = 7


class PeerError(MeshError):
    """The peer broke the protocol. Our state is unchanged."""

    code = "peer"


TEXT_CHARS_MAX = 2000  # longer words from another process are cut
BY_CODE: dict[str, type[MeshError]] = {
    kind.code: kind
    for kind in (
        MeshError,
        UsageError,
        NotFoundError,
        NotAuthenticatedError,
        NotPermittedError,
        UnreachableError,
        NoAnswerError,
        ExpiredError,
        ConflictError,
        RefusedError,
        ExhaustedError,
        ClockError,
        DamagedError,
        StorageError,
        StaleError,
        PeerError,
    )
}


def fields_of(error: MeshError) -> dict[str, str]:
    """Return what of an error crosses a process."""
    return {"code": error.code, "message": error.message, "hint": error.hint}


def error_of(fields: object) -> MeshError:
    """Rebuild an error that crossed a process; whatever came, it is an error."""
    if not isinstance(fields, dict):
        return PeerError("the other side failed, and its reason is unreadable")
    kind = BY_CODE.get(str(fields.get("code")), MeshError)
    message, hint = str(fields.get("message", "it did not say why")), str(fields.get("hint", ""))
    return kind(message[:TEXT_CHARS_MAX], hint[:TEXT_CHARS_MAX])
