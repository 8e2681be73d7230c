"""`budget`: how much may be spent, by whom, and what follows."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import typer

from session_mesh.call import Call
from session_mesh.output import words
from session_mesh.output.render import View
from session_mesh.output.tables import Table
from session_mesh.verbs import leading_verb, verb
from session_mesh.views.amounts import UNPRICED_SHOWN_MAX

COLUMNS = ("BUDGET", "FOR", "SPENT", "LIMIT", "%", "STATE", "THEN", "ENDS", "HEARD", "HELD")
FLEXIBLE = ("HELD", "FOR", "BUDGET")
SPARE = ("HEARD", "THEN", "ENDS", "LIMIT", "FOR", "HELD")  # who is held stays longest
READABLE = 16  # of who is held
NUMBERS = ("SPENT", "LIMIT", "%")
HELD_MAX = 3  # named in a row
AHEAD_MAX = 8  # told of
Name = Annotated[str, typer.Argument(metavar="NAME", help="What it is called.")]


@leading_verb("session-mesh budget", "session-mesh budget list -o json")
def app(call: Call) -> View:
    """List budgets, set them, and take them back.

    Every node adds up what the whole mesh has spent, warns, and suspends or kills its own sessions
    when a limit is reached. While nodes are missing it says so, and never kills.
    """
    return _listed(call)


@verb("session-mesh budget list", "session-mesh budget list -o csv", app=app)
def list(call: Call) -> View:  # noqa: A001 - the verb is called so
    """List budgets, how much of each is spent, and whom they hold."""
    return _listed(call)


@verb(
    "session-mesh budget set team --limit 20usd --per day",
    "session-mesh budget set crawlers --limit 5Mtok --per hour --spec crawl --warn 50% --then kill",
    app=app,
)
def set(  # noqa: A001 - the verb is called so
    call: Call,
    name: Name,
    limit: Annotated[
        str, typer.Option("--limit", metavar="L", help="20usd, 0.5usd, 5Mtok, 200ktok")
    ],
    per: Annotated[
        Literal["hour", "day", "month"], typer.Option("--per", help="It begins anew each; in UTC.")
    ],
    owner: Annotated[
        str, typer.Option("--owner", metavar="X", help="Count only what is spent for this one.")
    ] = "",
    agent_id: Annotated[
        str, typer.Option("--agent-id", metavar="X", help="Count only what this agent spends.")
    ] = "",
    spec: Annotated[
        str, typer.Option("--spec", metavar="X", help="Count only sessions that were run with it.")
    ] = "",
    project: Annotated[
        str, typer.Option("--project", metavar="X", help="Count only what this project spends.")
    ] = "",
    warn: Annotated[
        str, typer.Option("--warn", metavar="P", help="Warn at so much of the limit.")
    ] = "80%",
    then: Annotated[
        Literal["suspend", "kill"], typer.Option("--then", help="What is done to who spends on.")
    ] = "suspend",
) -> View:
    """Set a budget for the whole mesh, or set it anew: then it acts anew.

    For operators and admins; what an admin has set only an admin changes. A session that a budget
    has suspended runs on when somebody resumes it, not by itself. What begins while it is exceeded
    is refused.
    """
    from meshnode.client.commands import budgets  # noqa: PLC0415 - --help needs no gRPC

    said = {"name": name, "limit": limit, "per": per, "then": then, "warn": warn}
    whose = {"owner": owner, "agent_id": agent_id, "spec": spec, "project": project}
    with call.mesh() as mesh:
        value = budgets.set_budget(mesh, said | whose)
    every = "an" if value["per"] == "hour" else "a"
    terms = f"{value['limit']} {every} {value['per']} for {_whose(value)}, then {value['then']}"
    human = f"budget {name}: {terms}; {value['reason']}"
    notes = [*_unpriced([value]), *_exceeded(value)]
    notes += _left(name, value["left_held"], value["left_held_more"])
    return View(value=value, human=human, ids=[name], notes=notes)


@verb("session-mesh budget remove team", "session-mesh budget remove team --yes", app=app)
def remove(
    call: Call,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> View:
    """Take a budget back on all nodes. Whom it has suspended stays so until resumed."""
    alone = "remove asks first, and there is no terminal"
    call.ask_first(f"remove budget {name[:60]}?", alone, "say --yes", yes=yes)
    from meshnode.client.commands import budgets  # noqa: PLC0415 - as above

    with call.mesh() as mesh:
        value = budgets.remove_budget(mesh, name)
    notes = _left(name, value["held"], value["held_more"])
    return View(value=value, human=f"removed: {name}", ids=[name], notes=notes)


def _listed(call: Call) -> View:
    from meshnode.client.commands import budgets  # noqa: PLC0415 - as above

    with call.mesh() as mesh:
        value = budgets.budgets(mesh)
    places = words.places_of(one["spent_usd"] for one in value["budgets"])
    rows = [_row(one, places) for one in value["budgets"]]
    held = any(one["held"] for one in value["budgets"])
    resume = ["who is held runs on with: session-mesh resume ID"] if held else []
    return View(
        value=value,
        human=Table(COLUMNS, rows, "no budget is set", FLEXIBLE, SPARE, NUMBERS, READABLE),
        records="budgets",
        ids=[one["name"] for one in value["budgets"]],
        notes=[
            *words.coverage_notes(value["coverage"]),
            *_unpriced(value["budgets"]),
            *_ahead(value["ahead"]),
            *resume,
        ],
    )


def _ahead(words_ahead: Sequence[dict[str, Any]]) -> Sequence[str]:
    named = [
        f"{one['name']} does not count before {one['issued_at']}: key {one['issuer']} has"
        f" {'removed' if one['removes'] else 'set'} it by a clock that was ahead"
        for one in words_ahead[:AHEAD_MAX]
    ]
    more = len(words_ahead) - AHEAD_MAX
    return [*named, f"and {more} more that do not count yet"] if more > 0 else named


def _exceeded(budget: dict[str, Any]) -> Sequence[str]:
    if budget["state"] != "exceeded":
        return ()
    is_kill = budget["then"] == "kill" and budget["nodes_heard"] >= budget["nodes_known"]
    said = (
        f"it is exceeded: who spends from it is {'killed' if is_kill else 'suspended'} now, and"
        " nothing that would begins"
    )
    return [said if is_kill else f"{said} (session-mesh budget list tells whom it holds)"]


def _left(name: str, held: Sequence[dict[str, Any]], more: int) -> Sequence[str]:
    """Say whom a budget has suspended that is there no more; nothing else names them."""
    if not held:
        return ()
    return [
        f"who was suspended by budget {name} stays so until resumed (session-mesh resume ID):"
        f" {', '.join(_some(held, more))}"
    ]


def _some(held: Sequence[dict[str, Any]], more: int) -> Sequence[str]:
    named = [f"{one['node_name']}/{one['agent_id']}" for one in held]
    left = len(named[HELD_MAX:]) + more
    return [*named[:HELD_MAX], *([f"and {left} more"] if left else [])]


def _row(budget: dict[str, Any], places: int) -> tuple[str, ...]:
    spent = budget["spent_usd"]
    return (
        budget["name"],
        _whose(budget),
        words.count(budget["spent_tokens"]) if spent is None else words.usd(spent, places),
        budget["limit"],
        f"{budget['percent']}%",
        budget["state"],
        budget["then"],
        budget["window_end"][:16].replace("T", " ") + "Z",
        f"{budget['nodes_heard']}/{budget['nodes_known']}",
        ", ".join(_some(budget["held"], budget["held_more"])) or "-",
    )


def _whose(budget: dict[str, Any]) -> str:
    named = (
        ("owner", budget["owner"]),
        ("agent", budget["agent_id"]),
        ("spec", budget["specialization"]),
        ("project", budget["project"]),
    )
    return " ".join(f"{kind} {word}" for kind, word in named if word) or "all"


def _unpriced(budgets: Sequence[dict[str, Any]]) -> Sequence[str]:
    in_money = [one for one in budgets if one["spent_usd"] is not None]
    return [note for one in in_money for note in _unpriced_in(one)]


def _unpriced_in(budget: dict[str, Any]) -> Iterator[str]:
    most = sorted(budget["unpriced"].items(), key=lambda one: -one[1])
    for model, tokens in sorted(most[:UNPRICED_SHOWN_MAX]):
        yield (
            f"no price known for {model}: {words.count(tokens)} tokens are not in budget"
            f" {budget['name']}"
        )
    rest = most[UNPRICED_SHOWN_MAX:]
    if left := len(rest) + budget["unpriced_more"]:
        tokens = sum(tokens for _, tokens in rest) + budget["unpriced_more_tokens"]
        yield f"nor for {left} more models: {words.count(tokens)} tokens of budget {budget['name']}"
