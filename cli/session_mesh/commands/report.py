"""`report`: an agent says what one response of its model has used."""

from typing import Annotated

import typer

from meshnode.client.errors import UsageError
from session_mesh.call import Call
from session_mesh.output.render import View
from session_mesh.verbs import verb


@verb(
    "session-mesh report --model gpt-5 --input 1200 --output 340 --id resp_77",
    "session-mesh report --model gpt-5 --input 90 --cache-read 4000 --id resp_78 -o json",
)
def app(
    call: Call,
    model: Annotated[str, typer.Option("--model", metavar="M", help="As its provider names it.")],
    report_id: Annotated[
        str, typer.Option("--id", metavar="ID", help="Of the response; it counts once.")
    ],
    input_: Annotated[
        int | None,
        typer.Option("--input", metavar="N", help="Tokens sent, cached ones not counted."),
    ] = None,
    output_tokens: Annotated[
        int | None, typer.Option("--output", metavar="N", help="Tokens billed as output.")
    ] = None,
    cache_read: Annotated[
        int | None, typer.Option("--cache-read", metavar="N", help="Tokens read from a cache.")
    ] = None,
    cache_write_5m: Annotated[
        int | None,
        typer.Option("--cache-write-5m", metavar="N", help="Tokens cached for 5 minutes."),
    ] = None,
    cache_write_1h: Annotated[
        int | None, typer.Option("--cache-write-1h", metavar="N", help="Tokens cached for an hour.")
    ] = None,
    reasoning: Annotated[
        int | None,
        typer.Option("--reasoning", metavar="N", help="The part of output that was reasoning."),
    ] = None,
    web_search: Annotated[
        int | None, typer.Option("--web-search", metavar="N", help="Searches billed.")
    ] = None,
    provider: Annotated[
        str, typer.Option("--provider", metavar="P", help="Whose model it is.")
    ] = "",
    tier: Annotated[str, typer.Option("--tier", metavar="T", help="At which prices: batch.")] = "",
) -> View:
    """Count what one response of a model has used.

    Works inside a session only, and counts for that session. The same ID counts once; other numbers
    under it are refused. What a followed log tells already need not be reported.
    """
    from meshnode.client.inside import Usage  # noqa: PLC0415 - --help needs no gRPC

    given = {
        "input": input_,
        "output": output_tokens,
        "cache_read": cache_read,
        "cache_write_5m": cache_write_5m,
        "cache_write_1h": cache_write_1h,
        "reasoning": reasoning,
        "web_search": web_search,
    }
    counts = {name: count for name, count in given.items() if count is not None}
    if not counts:
        raise UsageError("a report without numbers", "give --input N --output N, 0 if it was none")
    usage = Usage(**counts)
    session = call.inside()  # and not entered, which takes a node that runs
    counted = session.report(report_id, model, usage, provider=provider, tier=tier)
    return View(
        value={"id": report_id, "counted": counted},
        human="counted" if counted else "was counted before",
        ids=[report_id],
    )
