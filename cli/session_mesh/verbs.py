"""How a function becomes a verb: global options after it too, examples in its help, its View shown.

Invariant: a verb's module is imported only when that verb runs, completes or explains itself.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from session_mesh.arguments.plain import PlainCommand, PlainGroup
from session_mesh.inside import check_allowed
from session_mesh.output.render import Format, View, render

if TYPE_CHECKING:
    from session_mesh.call import Call

HomeOption = Annotated[
    str | None,
    typer.Option("--home", metavar="DIR", help="Home of the node, else SESSION_MESH_HOME."),
]
OutputOption = Annotated[
    Format | None, typer.Option("-o", "--output", help="How to print; table unless told.")
]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Print ids or names alone.")]
FormatOption = Annotated[
    Format | None, typer.Option("-o", "--format", help="How to print; table unless told.")
]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", help="Show the calls made, and where an error is from.")
]
GLOBALS: dict[str, tuple[Any, Any]] = {
    "home": (HomeOption, None),
    "output": (OutputOption, None),
    "quiet": (QuietOption, False),
    "verbose": (VerboseOption, False),
}
# Who only reads that it failed would order it again: a second agent, or a second steer.
UNTOLD = "only this answer is lost: whatever was ordered is done"
SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class UnreadError(Exception):
    """Nobody reads what is printed; typer would end the process by itself at a BrokenPipeError."""


def new_app(**settings: Any) -> typer.Typer:  # noqa: ANN401 - typer's own settings
    """Make a typer app in the house style."""
    return typer.Typer(
        cls=PlainGroup,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=SETTINGS,
        **settings,
    )


def verb(
    *examples: str,
    app: typer.Typer | None = None,
    told: tuple[str, Sequence[tuple[str, str]]] | None = None,
    **context_settings: Any,  # noqa: ANN401 - typer's own
) -> Callable[[Callable[..., View | int]], typer.Typer]:
    """Make a function that takes a Call and options, and returns a View or a code, a verb.

    `told`: words that its help explains, under a heading.
    """
    into = app or new_app()

    def decorate(command: Callable[..., View | int]) -> typer.Typer:
        into.command(
            name=command.__name__.rstrip("_"),  # `list_` is no builtin
            cls=PlainCommand,
            help=_help(command, examples, told),
            context_settings=SETTINGS | context_settings,
        )(_typed(command))
        return into

    return decorate


def leading_verb(
    *examples: str,
) -> Callable[[Callable[..., View | int]], typer.Typer]:
    """Make a function a verb that answers by itself, and has others beneath it: `verb(app=...)`."""
    into = new_app()

    def decorate(command: Callable[..., View | int]) -> typer.Typer:
        into.callback(
            invoke_without_command=True, help=_help(command, examples), context_settings=SETTINGS
        )(_typed(command))
        return into

    return decorate


def _typed(command: Callable[..., View | int]) -> Callable[..., int]:
    def run(context: typer.Context, **options: Any) -> int:  # noqa: ANN401 - each verb's
        said = {name: options.pop(name) for name in GLOBALS}
        given: Call = context.obj
        call = given.overridden(said)
        check_allowed(_name_of(context))
        if context.invoked_subcommand is not None:  # a verb beneath this one answers
            context.obj = call
            return 0
        try:
            answer = command(call, **options)
            return answer if isinstance(answer, int) else _told(answer, call)
        except BrokenPipeError as error:
            raise UnreadError from error

    parameters = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    keyword = inspect.Parameter.KEYWORD_ONLY
    extra = [
        inspect.Parameter(name, keyword, default=default, annotation=annotation)
        for name, (annotation, default) in _globals_beside(parameters).items()
    ]
    first = inspect.Parameter("context", keyword, annotation=typer.Context)
    own = [parameter.replace(kind=keyword) for parameter in parameters]
    signature = inspect.Signature([first, *own, *extra])
    run.__signature__ = signature  # type: ignore[attr-defined] # what typer reads
    run.__annotations__ = {name: one.annotation for name, one in signature.parameters.items()}
    run.__name__ = command.__name__
    return run


def _told(answer: View, call: "Call") -> int:
    try:
        return render(answer, call.streams, call.style)
    except OSError as error:
        error.add_note(UNTOLD)
        raise


def _globals_beside(parameters: Sequence[inspect.Parameter]) -> dict[str, tuple[Any, Any]]:
    """Return the global options of a verb, which may need the word --output for something else."""
    own = [get_args(one.annotation)[1] for one in parameters]
    spelled = {word for one in own for word in (one.default, *(one.param_decls or ()))}
    return GLOBALS | ({"output": (FormatOption, None)} if "--output" in spelled else {})


def _name_of(context: typer.Context) -> str:
    """Return the verb as a user knows it: of `nodes forget`, nodes."""
    return context.command_path.split()[1]


def _help(
    command: Callable[..., View | int],
    examples: tuple[str, ...],
    told: tuple[str, Sequence[tuple[str, str]]] | None = None,
) -> str:
    lines = "\n".join(f"  {example}" for example in examples)
    explained = _explained(*told) if told else ""
    return f"{inspect.getdoc(command)}{explained}\n\n\b\nExamples:\n{lines}"


def _explained(heading: str, words: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in words)
    lines = "\n".join(f"  {name:<{width}}  {meaning}" for name, meaning in words)
    return f"\n\n\b\n{heading}:\n{lines}"
