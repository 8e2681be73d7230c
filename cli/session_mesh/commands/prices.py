"""`prices`: what tokens cost, and which list says so."""

from typing import Annotated, Any

import typer

from meshnode.client.durations import parse_instant, seconds_of
from meshnode.client.errors import UsageError
from meshnode.client.words import nearest
from session_mesh.call import Call
from session_mesh.output.render import View
from session_mesh.verbs import new_app, verb

NOT_FOUND = 3
COUNT_DIGITS_MAX = 15
UNITS = {"request": "a request", "web_search": "a search"}  # others are per million tokens

app = new_app(help="Show what tokens cost, and which list says so.")


@app.callback()
def prices() -> None:
    """Show what tokens cost, and which list says so."""


@verb(
    "session-mesh prices explain claude-sonnet-4-5",
    "session-mesh prices explain gpt-5 --tier batch --tokens input=200000,output=4000",
    "session-mesh prices explain my-model --prices prices.yaml --at 2026-06-01 -o json",
    app=app,
)
def explain(
    call: Call,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="As the log names it.")],
    provider: Annotated[
        str, typer.Option("--provider", metavar="P", help="As the log names it, if it does.")
    ] = "",
    tier: Annotated[
        str, typer.Option("--tier", metavar="T", help="Such as batch, or batch>200000.")
    ] = "",
    at: Annotated[str, typer.Option("--at", metavar="DATE", help="Else now.")] = "",
    tokens: Annotated[
        str, typer.Option("--tokens", metavar="KIND=N,...", help="What the example uses.")
    ] = "",
    prices: Annotated[
        str, typer.Option("--prices", metavar="FILE", help="Else prices.yaml in the home.")
    ] = "",
) -> View:
    """Explain what a model costs: which list and rule say so, and what else was tried.

    Your own prices come first, then the table of this version, genai-prices, and the table of the
    Higress monitor. A model that none of them knows is unpriced: exit 3, with what to write.
    """
    from meshnode.node.configuration import pricing  # noqa: PLC0415 - the composition root is large

    at_s = seconds_of(parse_instant(at, call.now_s())) if at else call.now_s()
    counts = _counts(tokens, pricing.KINDS) if tokens else None
    faults: list[str] = []
    found = pricing.prices_of(call.home, prices, faults)
    value = pricing.explain(found.book, pricing.Asked(model, provider, tier, at_s, counts))
    value["faults"] = faults = [*faults, *found.faults]
    priced = value["price"] is not None
    return View(
        value=value,
        human=_lines(value),
        records="tiers",
        ids=[value["price"]["matched"]] if priced else [],
        notes=[*faults, *(_tier_unknown(value) if priced else [_unpriced(model)])],
        exit_code=0 if priced else NOT_FOUND,
    )


def _counts(text: str, known: tuple[str, ...]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for part in text.split(","):
        name, equals, count = (word.strip() for word in part.partition("="))
        if name not in known or not equals:
            hint = f"write KIND=NUMBER, with one of: {', '.join(known)}"
            raise UsageError(f"no such kind of tokens: {name[:40]!r}{nearest(name, known)}", hint)
        if not count.isascii() or not count.isdecimal() or len(count) > COUNT_DIGITS_MAX:
            raise UsageError(f"not a number of tokens: {count[:40]!r}", "write digits alone")
        counts[name] = counts.get(name, 0) + int(count)
    return counts


def _tier_unknown(value: dict[str, Any]) -> list[str]:
    service, held = value["tier"].partition(">")[0], value["price"]["tier"]
    if service == held:
        return []
    known = list(dict.fromkeys(one["tier"].partition(">")[0] for one in value["tiers"]))
    said = f"{value['price']['matched']} has no prices of its own in tier {service[:60]!r}"
    return [f"{said}: those of {held} hold; it has some in {', '.join(known)}"]


def _unpriced(model: str) -> str:
    return f"no list knows {model[:200]!r}: its tokens are counted and listed as unpriced"


def _lines(value: dict[str, Any]) -> tuple[str, ...]:
    lines = [f"{value['model']}  tier {value['tier']}, at {value['at']}", ""]
    price, example = value["price"], value["example"]
    if price is not None:
        lines += [f"price    {price['source']}", f"matched  {price['matched']}", ""]
        lines += [_rate(name, amount) for name, amount in price["rates"].items()]
        used = ", ".join(f"{n} {name}" for name, n in example["usage"].items() if n)
        lines += ["", f"example  {used}: ${example['cost_usd']}", ""]
    else:
        lines += ["unpriced; to price it, write into prices.yaml in the home:", ""]
        lines += [*value["snippet"].splitlines(), ""]
    lines.append("tried, in this order:")
    lines += [_attempt(one) for one in value["tried"]]
    others = [one for one in value["tiers"] if one["tier"] != value["tier"]]
    if others:
        lines += ["", "other tiers, input and output per million tokens:"]
        lines += [f"  {one['tier']:<18} {_in_and_out(one['rates'])}" for one in others]
    changed = value["changed"]
    steps = [
        one for one, last in zip(changed, [None, *changed], strict=False) if not _is_as(one, last)
    ]
    if len(steps) > 1:
        lines += ["", "its price changes; input and output per million tokens:"]
        for one, last in zip(steps, [None, *steps], strict=False):
            since = f"from {one['at'][:10]}" if one["at"] else "before"
            more = f"{_others(one, last)}{_of_whom(one, last)}"
            lines.append(f"  {since:<18} {_in_and_out(one['rates'])}{more}")
    if value["by_time_of_day"]:
        lines += ["", "its price depends on the time of day"]
    return tuple(lines)


def _is_as(one: dict[str, Any], last: dict[str, Any] | None) -> bool:
    """Whether a list's next step changes nothing, as where only how it is written did."""
    return last is not None and one["rates"] == last["rates"]


def _of_whom(one: dict[str, Any], last: dict[str, Any] | None) -> str:
    """Name what matches from then on, where that is not what did before."""
    is_another = last is not None and one["matched"] not in {"", last["matched"]}
    return f"  ({one['matched']})" if is_another else ""


def _others(one: dict[str, Any], last: dict[str, Any] | None) -> str:
    """Name what else changed where input and output stay as they were."""
    if last is None or not (one["rates"] and last["rates"]):
        return ""
    other = [name for name, rate in one["rates"].items() if rate != last["rates"].get(name)]
    return "" if {"input", "output"} & set(other) else f"  ({', '.join(other)} changed)"


def _in_and_out(rates: dict[str, str] | None) -> str:
    return f"${rates['input']}  ${rates['output']}" if rates else "no price"


def _rate(name: str, amount: str) -> str:
    return f"  {name:<15} ${amount} {UNITS.get(name, 'per million tokens')}"


def _attempt(one: dict[str, str]) -> str:
    name = f"{one['provider']}: {one['name']}" if one["provider"] else one["name"]
    matched = f" -> {one['matched']}" if one["matched"] else ""
    return f"  {one['source']}  {name}  {one['outcome']}{matched}"
