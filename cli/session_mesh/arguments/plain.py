"""Values that are what they were written as, taken without a validator.

typer converts each value with pydantic, whose import and schemas are a third of a short command's
time. Text, lists of text, one of several words and what was not given need no conversion.

Invariant: what is not known here to be right as it is goes to typer, which converts or refuses it.
"""

from typing import Any, Literal, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

from meshnode.client.errors import UsageError

NUMBER_MAX = (1 << 63) - 1  # larger: refused, since neither the wire nor a disk holds it


class PlainCommand(TyperCommand):
    """A command that takes plain values as they are."""

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - typer's own, of no public type
        """Return its options and arguments."""
        return list(map(_taking, super().get_params(ctx)))

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - as above
        """Write its help in words of people."""
        _word(self.params)
        super().format_help(ctx, formatter)


class PlainGroup(TyperGroup):
    """The same, of a command with others beneath it."""

    def get_params(self, ctx: Any) -> list[Any]:  # noqa: ANN401 - as above
        """Return its own options and arguments."""
        return list(map(_taking, super().get_params(ctx)))

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - as above
        """Write its help in words of people."""
        _word(self.params)
        super().format_help(ctx, formatter)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:  # noqa: ANN401 - as above
        """Find who is called; raises UsageError for what others call so."""
        meant = "" if ctx.resilient_parsing or args[0] in self.commands else self.meant(ctx, *args)
        if meant:
            raise UsageError(f"no such command: {args[0]!r}", meant)
        return super().resolve_command(ctx, args)

    def meant(self, ctx: Any, name: str, *_: str) -> str:  # noqa: ANN401 - as above
        """Return what to type instead of a name that others have for it, "" if none has."""
        is_list = name == "list" and self.invoke_without_command
        return f"{ctx.command_path} lists them" if is_list else ""


def _word(parameters: list[Any]) -> None:
    from session_mesh.arguments.helping import word  # noqa: PLC0415 - most calls ask for no help

    word(parameters)


def _taking(parameter: Any) -> Any:  # noqa: ANN401 - as above
    conversion = getattr(parameter, "get_runtime_param", None)
    if conversion is not None and not isinstance(conversion, _Taking):
        parameter.get_runtime_param = _Taking(parameter)
    return parameter


class _Taking:
    """Stands where typer asks a parameter for its conversion, which is made when it is needed."""

    def __init__(self, parameter: Any) -> None:  # noqa: ANN401 - as above
        self._annotation = parameter.type_descriptor.annotation
        self._is_many = parameter.multiple or parameter.nargs == -1
        self._conversion = parameter.get_runtime_param

    def __call__(self) -> "_Taking":
        """Return what converts."""
        return self

    def coerce(self, value: Any, **about: Any) -> Any:  # noqa: ANN401 - as above
        """Return a value as the verb gets it; raises typer's BadParameter."""
        if value is None:
            return () if self._is_many else None
        if self._is_many and isinstance(value, (list, tuple)) and get_args(self._annotation):
            inner = get_args(self._annotation)[0]
            if get_origin(self._annotation) is list and all(is_plain(one, inner) for one in value):
                return list(value)
        elif is_plain(value, self._annotation):
            return value
        converted = self._conversion().coerce(value, **about)
        if type(converted) is int and abs(converted) > NUMBER_MAX:
            raise typer.BadParameter(f"a number is at most {NUMBER_MAX}", **about)
        return converted


def is_plain(value: object, annotation: object) -> bool:
    """Whether a value already is what its annotation asks for; a number is when it is a default."""
    if not isinstance(value, str):
        return type(value) is annotation
    if get_origin(annotation) is Literal:
        return value in get_args(annotation)
    return annotation is str and value.isascii()  # other text may hold bytes that are no UTF-8
