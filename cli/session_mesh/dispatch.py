"""Parse arguments, run one verb, turn its outcome into an exit code.

Invariant: a user never meets a traceback unasked, and stdout carries nothing but the answer.
"""

import errno
import importlib
import sys
import traceback
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from meshnode.client.dumping import forbid_dumps
from meshnode.client.errors import MeshError, NotPermittedError, UsageError
from meshnode.client.stdout import silence_stdout
from session_mesh.arguments.helping import GROUPS
from session_mesh.arguments.plain import PlainGroup
from session_mesh.call import Call
from session_mesh.output.render import Failure, Streams, Style, View, render, render_failure
from session_mesh.verbs import (
    SETTINGS,
    HomeOption,
    OutputOption,
    QuietOption,
    UnreadError,
    VerboseOption,
)

PROGRAM = "session-mesh"
VERBS = tuple(verb for verbs in GROUPS.values() for verb in verbs)
MEANT = {"ps": "list", "ls": "list", "sessions": "list", "top": "watch", "tail": "logs --follow"}
COMPLETIONS = {"--install-completion", "--show-completion"}
VALUED = {"--home", "-o", "--output"}  # options with a word behind them, before a verb
USAGE = 2
WORDINGS = {  # of those who parse words for us
    ": Value error, ": ": ",
    ":\n\t": ": ",  # choices, a line each
    ",\n\t": ", ",
    "a valid integer, unable to parse string as an integer": "a whole number",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "Input should be": "it should be",
}
# What a stream answers that takes nothing more; of files in a home the verbs tell themselves.
UNWRITTEN = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell would report it


class Verbs(PlainGroup):
    """Finds verbs by name, one module each, and imports only the one that is needed."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - typer's own
        super().__init__(**settings)
        self.commands = dict.fromkeys(VERBS, self)  # names only, for "did you mean"

    def list_commands(self, ctx: object) -> list[str]:  # noqa: ARG002 - typer's signature
        """Name the verbs in the order of a first day."""
        return list(VERBS)

    def get_command(self, ctx: object, cmd_name: str) -> Any:  # noqa: ANN401, ARG002 - typer's signature
        """Import a verb; None if there is none."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"session_mesh.commands.{cmd_name.replace('-', '_')}")
        command = typer.main.get_command(module.app)
        command.name = cmd_name
        return command

    def meant(self, ctx: Any, name: str, *_: str) -> str:  # noqa: ANN401, ARG002 - as above
        """Return what to type instead of a name that other programs have for a verb."""
        return f"did you mean session-mesh {MEANT[name]}?" if name in MEANT else ""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - as above
        """Say of completion that a shell may be named."""
        options: list[Any] = self.params
        for one in options:
            if one.opts[0] in COMPLETIONS:
                does = "Install" if one.opts[0] == "--install-completion" else "Print"
                one.help = f"{does} completion for this shell, or for one that is named: zsh."
        super().format_help(ctx, formatter)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - as above
        """List the verbs by what they are for: forty in a row are read by nobody."""
        for heading, verbs in GROUPS.items():
            width = formatter.width - 6 - max(map(len, verbs))
            found = [(verb, self.get_command(ctx, verb)) for verb in verbs]
            with formatter.section(heading):
                formatter.write_dl([(verb, one.get_short_help_str(width)) for verb, one in found])


app = typer.Typer(
    cls=Verbs, rich_markup_mode=None, pretty_exceptions_enable=False, context_settings=SETTINGS
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    home: HomeOption = None,
    output: OutputOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    version: Annotated[bool, typer.Option("--version", help="Print version and build.")] = False,
) -> None:
    """See, steer, stop and cost every agent session in a fleet, from any node, with no server.

    Start with: session-mesh up --detach, then session-mesh run -- CMD and session-mesh list.
    """
    given: Call = context.obj
    context.obj = given.overridden(
        {"home": home, "output": output, "quiet": quiet, "verbose": verbose}
    )
    if version:
        render(_edition(), given.streams, context.obj.style)
        raise typer.Exit
    if context.invoked_subcommand is None:
        given.streams.err.write(context.get_help() + "\n")
        raise typer.Exit(USAGE)


def _edition() -> View:
    from meshnode.node.version import edition  # noqa: PLC0415 - rare

    value = edition()
    build = f"build {value['build']}, " if value["build"] else ""
    told = f"{build}schema {value['schema']}, Python {value['python']}"
    return View(value, f"{PROGRAM} {value['version']} ({told})")


def dispatch(arguments: Sequence[str] | None, streams: Streams | None) -> int:
    """Run the command line and return its exit code; words and streams are this process's if None.

    Raises KeyboardInterrupt.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if streams is None:
        forbid_dumps()  # a process of our own, which may be about to read a key
        streams = Streams.of_process()
    try:
        code = _run(words, streams)
        streams.out.flush()
    except (BrokenPipeError, UnreadError):
        silence_stdout()
        return BROKEN_PIPE
    except typer.Abort:  # what typer makes of Ctrl-C
        raise KeyboardInterrupt from None
    except Exception as error:  # noqa: BLE001 - the last stop: a sentence instead of a traceback
        return render_failure(_failure_of(error, words), streams, _style_of(words))
    else:
        return code


def _run(words: Sequence[str], streams: Streams) -> int:
    for word in _before_command(words):
        if any("\ud800" <= one <= "\udfff" for one in word):  # how Python keeps such bytes
            raise UsageError(f"not UTF-8: {word[:60]!a}", "write it in UTF-8, or leave it out")
    command = typer.main.get_command(app)
    own = _before_command(words)
    if COMPLETIONS & set(own[: _verb_at(own)]):  # behind `run` they may be its agent's
        from session_mesh.arguments.shells import asked  # noqa: PLC0415 - once in a shell's life

        streams.out.write(asked(own, command) or "")
        return 0
    try:
        code = command.main(
            args=_as_options(words), prog_name=PROGRAM, standalone_mode=False, obj=Call(streams)
        )
    except SystemExit as error:  # how typer takes it that nobody reads its help
        if isinstance(error.__context__, BrokenPipeError):
            raise UnreadError from None
        raise
    return code if isinstance(code, int) else 0


def _as_options(words: Sequence[str]) -> list[str]:
    """Take `help VERB` and `version`, also behind options, for the options of their name."""
    at = _verb_at(words)
    before = words[:at]
    match list(words[at:]):
        case ["help", *verb]:
            return [*before, *verb, "--help"]
        case ["version", *rest]:
            return [*before, "--version", *rest]
        case others:
            return [*before, *others]


def _verb_at(words: Sequence[str]) -> int:
    """Return where the verb stands: behind options of the program itself."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        at += 1 + (words[at] in VALUED)
    return at


def _failure_of(error: Exception, words: Sequence[str]) -> Failure:
    details = traceback.format_exc() if "--verbose" in _before_command(words) else ""
    if isinstance(error, MeshError):
        return Failure(error.code, error.message, error.hint, error.exit_code, details)
    if isinstance(error, TyperException):
        hint = f"{_path_of(error, words)} --help shows the options"
        return Failure("usage", _plainly(error.format_message()), hint, USAGE)
    if isinstance(error, OSError) and error.filename is None and error.errno in UNWRITTEN:
        silence_stdout()
        said = f"cannot write the output: {error.strerror}"
        is_closed = error.errno == errno.EBADF
        fix = "> /dev/null throws it away" if is_closed else "make room there, or write elsewhere"
        notes = getattr(error, "__notes__", ())  # that something was done all the same
        return Failure("failed", said, "; ".join([fix, *notes]), 1, details)
    if isinstance(error, PermissionError) and error.filename is not None:
        said = f"{error.filename}: permission denied"
        fix = "it is another user's: name a home of your own with --home, or ask who it belongs to"
        return Failure(NotPermittedError.code, said, fix, NotPermittedError.exit_code, details)
    return Failure(
        "internal",
        f"internal error: {type(error).__name__}: {error}",
        "please report it with what --verbose shows",
        details=details,
    )


def _plainly(said: str) -> str:
    """Say what a validator has said as we would."""
    for theirs, ours in WORDINGS.items():
        said = said.replace(theirs, ours)
    return said


def _path_of(error: TyperException, words: Sequence[str]) -> str:
    """Return how who was called is called: not every error says it."""
    context = getattr(error, "ctx", None)
    if context is not None:
        return str(context.command_path)
    command: Any = typer.main.get_command(app)
    path = [PROGRAM]
    for place, word in enumerate(_before_command(words)):
        find = getattr(command, "get_command", None)
        inner = find(None, word) if find else None
        if inner is not None:
            command = inner
            path.append(word)
        elif len(path) > 1 or place > 1:  # beneath a verb only the next word is one
            break
    return " ".join(path)


def _style_of(words: Sequence[str]) -> Style:
    """Whether JSON was asked for, found in the words themselves: they may be what is wrong."""
    asked = _before_command(words)
    for word, after in pairwise([*asked, ""]):
        if f"{word} {after}" in {"-o json", "--output json"} or word in {"-ojson", "--output=json"}:
            return Style("json")
    return Style()


def _before_command(words: Sequence[str]) -> Sequence[str]:
    return words[: words.index("--")] if "--" in words else words
