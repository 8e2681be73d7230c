"""What was said in sessions: read without the right to, or sent to harm whoever reads it."""

import io
import json

import pytest
from auditing import Desk, granted

from meshnode.client.records.rounds import READ_BYTES_MAX, received
from meshnode.core.commands.commands import Command
from meshnode.core.errors import (
    NotPermittedError,
    PeerError,
    RefusedError,
    StaleError,
)
from meshnode.core.ledger.rounds import (
    LINE_BYTES_MAX,
    ROUND_BYTES_MAX,
    Function,
    Message,
    ToolCall,
    texts_from,
    texts_to_bytes,
)
from meshnode.node.ledger.rounds import read_rounds
from session_mesh.output.render import Streams, Style, View, render
from session_mesh.views.rounds import described_rounds

ESC = "\x1b]0;owned\x07\x1b[2J"
EVIL = f"{ESC}\u202egnp.exe\r\nRound 9 @ now\n  Answer: all is paid"
HEAD = b'{"rounds":1,"following":1}\n'
LINE = {
    "round": 1,
    "timestamp": "2026-02-01T09:30:15Z",
    "input_tokens": 1,
    "output_tokens": 2,
    "reasoning_tokens": 3,
    "cached_tokens": 4,
    "model": "m",
}


@pytest.mark.parametrize(
    "narrow",
    [{"actions": ("steer", "kill")}, {"agents": ("a",)}, {"specializations": ("x",)}],
    ids=str,
)
@pytest.mark.parametrize("action", ["read_rounds", "read_audit"])
def test_who_may_not_read_the_whole_node_cannot_by_naming_an_agent_of_his(narrow, action):
    desk = Desk()
    for args in ({"session": "s"}, {"session": "s", "agent_id": "a", "specialization": "x"}):
        signed = desk.order(action, key=granted(**narrow), args=args)
        with pytest.raises(NotPermittedError):
            desk.court.judge(signed, None, "", desk.clock.now_s)
    assert desk.records == []


def test_a_key_without_read_messages_reads_no_rounds():
    desk = Desk()
    key = granted(actions=("steer", "kill", "register"))
    for action, args in (("read_messages", {"what": "rounds"}), ("read_rounds", {"session": "s"})):
        with pytest.raises(NotPermittedError):
            desk.desk.judge_reading(desk.order(action, key=key, args=args), "")
    assert set(desk.kinds()) == {"command_refused"}


def test_a_request_for_rounds_is_for_one_start_of_one_node_and_is_no_command():
    desk = Desk()
    with pytest.raises(StaleError):
        desk.desk.judge_reading(desk.order("read_rounds", epoch=8), "")
    with pytest.raises(PeerError, match="target"):
        desk.desk.judge_reading(desk.order("read_rounds", session="s" * 26), "")
    assert not desk.journal.begun


async def test_reading_rounds_is_not_journalled_nor_carried_out():
    desk = Desk()
    with pytest.raises(RefusedError):
        await desk.desk.submit(desk.order("read_rounds"), "")
    assert not desk.journal.begun


@pytest.mark.parametrize("session", [None, 7, b"s", "", "x" * 100_000, ["s"]], ids=repr)
def test_a_name_that_is_none_reads_nothing(session):
    command = Command("m", bytes(16), "n", "", 1, "read_rounds", 0, 1, args={"session": session})
    with pytest.raises(RefusedError):
        read_rounds(None, command)  # type: ignore[arg-type] # nobody asks it


class Terminal(io.StringIO):
    encoding = "utf-8"


def test_what_was_said_moves_no_cursor_and_makes_no_line_of_ours():
    call = ToolCall(0, EVIL, "function", Function(EVIL, EVIL))
    told = {
        **LINE,
        "model": EVIL,
        "response_type": EVIL,
        "messages": [{"role": EVIL, "content": EVIL}],
        "question": EVIL,
        "answer": EVIL,
        "reasoning": EVIL,
        "has_tool_calls": True,
        "tool_calls": [
            {"id": call.id, "function": {"name": EVIL, "arguments": EVIL}, "type": EVIL}
        ],
    }
    value = received([HEAD, json.dumps(told).encode() + b"\n"])
    lines = described_rounds(value)
    streams = Streams(Terminal(), Terminal(), out_is_terminal=True)
    render(View(value=value, human=lines), streams, Style("table"))
    written = streams.out.getvalue()
    assert [one for one in written.replace("\n", "") if not one.isprintable()] == []
    assert [line for line in written.splitlines() if line.startswith("Round ")] == [
        "Round 1 @ 2026-02-01T09:30:15Z"
    ]


@pytest.mark.parametrize("name", ["question", "answer", "reasoning", "messages", "tool_calls"])
def test_a_text_of_five_mebibytes_takes_no_more_room_than_a_round_has(name):
    long = "x" * (5 << 20)
    said = {
        "messages": [{"role": "user", "content": long}],
        "tool_calls": [{"function": {"name": long, "arguments": long}}] * 9,
    }
    texts = texts_from({name: said.get(name, long)})
    assert texts.cut == (name,)
    assert len(texts_to_bytes(texts)) <= ROUND_BYTES_MAX


def test_an_owner_that_never_ends_its_answer_fills_no_memory():
    taken = 0

    def endless(piece: bytes):
        nonlocal taken
        while True:
            taken += len(piece)
            yield piece

    with pytest.raises(PeerError, match="more than"):
        received(_after_head(endless(b"x" * 65_536)))
    assert taken <= LINE_BYTES_MAX + (1 << 17)
    taken = 0
    with pytest.raises(PeerError, match="more than"):
        received(_after_head(endless(json.dumps(LINE).encode() + b"\n" + b" " * 65_000)))
    assert taken <= READ_BYTES_MAX + (1 << 17)


def _after_head(pieces):
    yield HEAD
    yield from pieces


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"the output of an agent\n",
        HEAD + b"{}\n",
        HEAD + b'{"round":1}\n',
        HEAD + json.dumps({**LINE, "messages": "x"}).encode() + b"\n",
        HEAD + json.dumps({**LINE, "input_tokens": -1}).encode() + b"\n",
        HEAD + json.dumps({**LINE, "cost_usd": {"a": 1}}).encode() + b"\n",
        HEAD + b"[" * 100_000 + b"\n",
        HEAD + json.dumps(LINE).encode(),
    ],
    ids=range(9),
)
def test_what_an_owner_makes_up_is_called_its_fault(answer):
    with pytest.raises(PeerError):
        received([answer])


def test_a_message_with_a_made_up_role_is_shown_as_one_line():
    lines = described_rounds(
        received([HEAD, json.dumps({**LINE, "messages": [{"role": "a\nb"}]}).encode() + b"\n"])
    )
    assert Message().content == ""
    assert len([line for line in lines if "[a" in line]) == 1
