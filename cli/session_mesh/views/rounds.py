"""What `show` prints of a session's rounds, and how it gets at them.

Invariant: a text keeps its lines, each indented: so no answer looks like a line of ours.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from meshnode.client.errors import MeshError, NotPermittedError
from session_mesh.output import words

MESSAGES_SHOWN_MAX = 3  # of a round, the newest; JSON has all that are kept
MESSAGE_CHARS_MAX = 200
RULE = "-" * 70
TEXTS = (("question", "Question"), ("answer", "Answer"), ("reasoning", "Reasoning"))


class Found(msgspec.Struct):
    """Rounds as far as they could be had: `notes` say what could not, `exit_code` how bad it is."""

    rounds: list[dict[str, Any]] = msgspec.field(default_factory=list)
    total: int = 0
    notes: list[str] = msgspec.field(default_factory=list)
    exit_code: int = 0

    def add(self, read: Callable[[], dict[str, Any]], *, messages: bool) -> None:
        """Take the rounds of one more owner, or say why there are none."""
        try:
            answer = read()
        except MeshError as error:
            self.notes.append(f"rounds: {error.message}")
            if error.hint:
                self.notes.append(error.hint)
            if messages and isinstance(error, NotPermittedError):
                self.exit_code = error.exit_code
            return
        self.total += answer["rounds_total"]
        self.rounds += answer["rounds"]

    @property
    def value(self) -> dict[str, Any]:
        """What JSON says of them: numbered through, in the order of their times."""
        ordered = sorted(self.rounds, key=lambda one: one["timestamp"])
        first = self.total - len(ordered) + 1
        numbered = [{**one, "round": number} for number, one in enumerate(ordered, first)]
        return {"rounds": numbered, "rounds_total": self.total}


def described_rounds(value: dict[str, Any]) -> tuple[str, ...]:
    """Lay out rounds below each other."""
    rounds, total = value["rounds"], value["rounds_total"]
    if not rounds:
        return ()
    shown = f", the last {len(rounds)} of them" if total > len(rounds) else ""
    lines = ["", f"Conversation Rounds ({total}{shown}):"]
    for one in rounds:
        lines += [RULE, *_round(one)]
    return tuple(lines)


def _round(one: dict[str, Any]) -> Iterator[str]:
    yield f"Round {one['round']} @ {one['timestamp']}"
    read, written = one["cached_tokens"], one["cache_write_tokens"]
    reasoning = one["reasoning_tokens"]
    told = [(read, "read from a cache"), (written, "written into one")]
    caches = ", ".join(f"{words.count(count)} {how}" for count, how in told if count)
    taken = f"{words.count(one['input_tokens'])} in{f' (of it {caches})' * bool(caches)}"
    thought = f" (of it {words.count(reasoning)} reasoning)" * bool(reasoning)
    given = f"{words.count(one['output_tokens'])} out{thought}"
    yield f"  Tokens: {taken} -> {given}   Cost: {words.usd(one['cost_usd'])}   {one['model']}"
    if one["has_tool_calls"]:
        yield "  Tool calls: Yes"
    if one["response_type"] not in {"", "normal"}:
        yield f"  Response: {one['response_type']}"
    yield from _messages(one)
    for name, title in TEXTS:
        if one.get(name):
            yield f"  {title}:"
            yield from (f"    {line}" for line in one[name].splitlines())
    if one.get("tool_calls"):
        yield "  Tool Calls:"
        for call in one["tool_calls"]:
            yield f"    - {call['function']['name']}({call['function']['arguments']})"


def _messages(one: dict[str, Any]) -> Iterator[str]:
    messages = one.get("messages") or []
    if messages:
        yield f"  Messages ({len(messages) + one.get('messages_left_out', 0)}):"
        for message in messages[-MESSAGES_SHOWN_MAX:]:
            text = " ".join(message["content"].split())
            more = " …" if len(text) > MESSAGE_CHARS_MAX else ""
            yield f"    [{message['role']}] {text[:MESSAGE_CHARS_MAX]}{more}"
