"""`usage`: what the agents of this machine have used, from their logs, without a node."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from meshnode.client.durations import parse_duration
from meshnode.client.errors import MeshError, UsageError
from meshnode.client.vocabulary import SOURCES
from session_mesh.arguments.completing import among, listed
from session_mesh.arguments.options import several
from session_mesh.call import Call
from session_mesh.output.render import View
from session_mesh.verbs import verb
from session_mesh.views.amounts import (
    BLOCK,
    DAYS_MAX,
    GROUPINGS,
    THEN,
    PricesAt,
    Span,
    groupings,
    ids_of,
    in_order,
    inexact,
    is_by_time,
    nothing_of,
    table_of,
    unpriced_in,
)
from session_mesh.views.blocks import FIELDS, source_of, table_of_blocks
from session_mesh.views.progress import Progress
from session_mesh.views.zones import own_zone

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from meshnode.ingest.reading import SourceConfig
    from meshnode.node.ledger.usage import Asked, Read, Usage, Wanted

BY = (*GROUPINGS, BLOCK)
REFRESH_MIN_S = 1
REMARKS_MAX = 5  # in words; JSON has all of them
LEFT_OUT = {
    "quarantined": "record(s) with numbers that cannot be true are not counted",
    "unparsable_lines": "line(s) cannot be read",
    "incomplete": "response(s) have not ended, or nobody logged their end",
}
NAMED_AS_READ = ("quarantined", "unparsable_lines")  # with their places


@verb(
    "session-mesh usage",
    "session-mesh usage --by model,project --days 7",
    "session-mesh usage --by block --days 3",
    "session-mesh usage --source higress --path /var/log/proxy/access.log --follow",
    "session-mesh usage --by model --prices-at today --prices team-prices.yaml",
    "session-mesh usage --explain msg_01AbC",
)
def app(
    call: Call,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            metavar="S",
            help="Only of these agents' logs; several: a,b.",
            autocompletion=listed(among(SOURCES)),
        ),
    ] = None,
    path: Annotated[
        list[str] | None,
        typer.Option("--path", metavar="PATH", help="Read here, not where usual; repeat for more."),
    ] = None,
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            metavar="|".join(BY),
            help="Group, by day unless told; several: a,b. A block: 5 hours of a Claude plan.",
            autocompletion=listed(among(BY)),
        ),
    ] = None,
    session_key: Annotated[
        str | None, typer.Option("--session-key", metavar="K", help="Count this session only.")
    ] = None,
    since: Annotated[str, typer.Option("--since", help="A moment, a date, or 7d.")] = "",
    until: Annotated[
        str, typer.Option("--until", help="Before this: a moment, a date, or 7d.")
    ] = "",
    days: Annotated[
        int | None, typer.Option("--days", min=1, max=DAYS_MAX, help="So many, today included.")
    ] = None,
    tz: Annotated[
        str, typer.Option("--tz", metavar="ZONE", help="Of days; yours by default.")
    ] = "",
    prices: Annotated[
        str, typer.Option("--prices", metavar="FILE", help="Else prices.yaml in the home.")
    ] = "",
    prices_at: PricesAt = THEN,
    follow: Annotated[bool, typer.Option("--follow", help="Go on as the logs grow.")] = False,
    refresh_interval: Annotated[
        str, typer.Option("--refresh-interval", metavar="D", help="Between two looks.")
    ] = "1s",
    rescan: Annotated[
        bool, typer.Option("--rescan", help="Read all logs anew; counts nothing twice.")
    ] = False,
    keep_messages: Annotated[
        bool, typer.Option("--keep-messages", help="Keep what was said, in this home alone.")
    ] = False,
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="ID", help="Show which lines made a figure.")
    ] = None,
) -> View | int:
    """Sum tokens and money of this machine's agents, read from their logs.

    Needs no node. What was read is kept in the home, and stays when logs are deleted. CACHED
    was read from caches or written into them.
    """
    from meshnode.node.ledger import locating, usage  # noqa: PLC0415 - --help needs no ledger

    pause_s = parse_duration(refresh_interval)
    if pause_s < REFRESH_MIN_S:
        raise UsageError(f"--refresh-interval is at least {REFRESH_MIN_S} s")
    _check_named({"--explain": explain, "--session-key": session_key})
    if explain:
        _refuse({"--follow": follow, "--session-key": session_key, "--by": by, "--tz": tz})
        _refuse({"--since": since, "--until": until, "--days": days})
        _refuse({"--prices-at": prices_at != THEN})
    zone, about_zone = (tz, "") if tz else own_zone()
    span = Span(since, until, days, zone)
    groups = groupings(by or ("day",), BY)
    named = several(source)
    of = source_of(named, session_key, follow=follow) if BLOCK in groups else named
    asked_at = partial(_asked_at, groups, span, prices_at)
    asked = asked_at(call.now_s())
    configs, missing = locating.sources_at(of, path or ())
    lacking = {name: missing[name] for name in named if name in missing}
    _refuse_all(lacking.values() if follow or not call.home.database.exists() else ())
    if keep_messages:
        configs = locating.with_messages(configs, of)
    paths = locating.all_names(configs) if path else ()
    wanted = usage.Wanted(tuple(of), paths, session_key)
    with usage.Usage(call.home, call.now_s, prices) as ledger:
        _refuse_all(error for name, error in lacking.items() if not ledger.has(name))
        if rescan:
            ledger.forget_places(configs)
        if explain:
            from session_mesh.views.explaining import explained  # noqa: PLC0415 - rarely needed

            _read(ledger, configs, call)
            return explained(ledger.explain(explain))
        if follow:
            from session_mesh.views.monitor import Monitor  # noqa: PLC0415 - as above

            _read(ledger, configs, call)
            ledger.follow()
            return Monitor(call, ledger, configs, wanted).run(asked_at, pause_s)
        read = _read(ledger, configs, call)
        value = in_order(ledger.answer(wanted, asked), asked.by) | {"sources": _sources(read)}
        if path and value["records"]:
            value["notes"] += _copies(ledger, wanted, zip(configs, read, strict=True))
    notes = [
        *ledger.faults,
        *(f"{error.message}: this is what was read before" for error in lacking.values()),
        *_notes(value, read, is_rescan=rescan),
        *inexact(value),
        *([about_zone] if about_zone and (since or until or days or is_by_time(groups)) else ()),
        *nothing_of(session_key or "", value, "usage"),
    ]
    return View(
        value=value,
        human=(table_of_blocks if BLOCK in groups else table_of)(value, groups),
        records="groups",
        keys=groups,
        fields=FIELDS if BLOCK in groups else (),
        ids=ids_of(value),
        notes=notes,
    )


def _asked_at(by: tuple[str, ...], span: Span, prices_at: str, now_s: float) -> "Asked":
    from meshnode.node.ledger.usage import Asked  # noqa: PLC0415 - as above

    return Asked(by, *span.bounds(now_s), span.tz, span.priced_at(prices_at, now_s))


def _check_named(flags: "Mapping[str, str | None]") -> None:
    for flag, named in flags.items():
        if named is not None and not named.strip():
            raise UsageError(f"{flag} names nothing", "is a variable unset?")


def _refuse(flags: "Mapping[str, object]") -> None:
    """Refuse what an explanation would ignore; raises UsageError."""
    for flag, given in flags.items():
        if given:
            hint = f"leave out {flag}"
            raise UsageError("--explain neither selects nor groups nor follows", hint)


def _refuse_all(errors: "Iterable[MeshError]") -> None:
    for error in errors:
        raise error


def _read(ledger: "Usage", configs: "Sequence[SourceConfig]", call: Call) -> "list[Read]":
    progress = Progress(call, None, "records are read")
    return [ledger.read(config, progress.note) for config in configs]


def _sources(read: "Sequence[Read]") -> list[dict[str, Any]]:
    from meshnode.node.ledger.answers import left_out  # noqa: PLC0415 - as above

    return [
        {
            "source": one.state.source,
            "path": one.state.path,
            "records": one.state.records,
            "detail": one.state.detail,
            "left_out": left_out(one),
        }
        for one in read
    ]


def _notes(value: dict[str, Any], read: "Sequence[Read]", *, is_rescan: bool) -> list[str]:
    notes = [one.state.detail for one in read if one.state.detail != "ok"]
    if not read and not value["records"]:
        notes.append("no logs of agents here: name them with --source and --path")
    if not value["records"]:
        empty = [one for one in read if not one.state.records and one.state.detail == "ok"]
        notes += map(_why_empty, empty)
    notes += unpriced_in(value)
    diagnostics = value["diagnostics"]
    for name, meaning in LEFT_OUT.items():
        if diagnostics[name]:
            notes.append(f"{diagnostics[name]} {meaning}")
    left_out = [where for source in value["sources"] for where in source["left_out"]]
    notes += [f"{_place(one)}: {one['reason']}" for one in left_out[:REMARKS_MAX]]
    if not (left_out or is_rescan) and any(diagnostics[name] for name in NAMED_AS_READ):
        notes.append("where they are: session-mesh usage --rescan")
    return notes


def _place(where: dict[str, Any]) -> str:
    line, offset = where["line"], where["offset"]
    return f"{where['file']}, byte {offset}" if line is None else f"{where['file']}:{line}"


def _why_empty(read: "Read") -> str:
    state, again = read.state, read.again
    if not again:
        return f"nothing in {state.path} is usage as {state.source} logs it"
    return (
        f"nothing in {state.path} is new: {_lines(again)} of responses that are"
        " counted already, from elsewhere (usage without --path has them)"
    )


def _copies(
    ledger: "Usage", wanted: "Wanted", sources: "Iterable[tuple[SourceConfig, Read]]"
) -> list[str]:
    """Say which paths look like copies of others, that have counted a part of them."""
    return [
        f"{_lines(read.again)} in {read.state.path} {'tells' if read.again == 1 else 'tell'} of"
        " responses that are counted already: what was read elsewhere first is not in these"
        " figures (usage without --path has it)"
        for config, read in sources
        if read.again and ledger.may_be_counted_elsewhere(config, wanted)
    ]


def _lines(number: int) -> str:
    return f"{number} line{'s' * (number != 1)}"
