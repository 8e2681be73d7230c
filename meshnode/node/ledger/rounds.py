"""The rounds of a session as their owner shows them: what counts, with the texts that are kept.

Invariant: a page of PAGE_ROUNDS is in memory at a time, whatever a session holds; the database is
free for others between two pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from meshnode.client.durations import rfc3339
from meshnode.core.errors import RefusedError
from meshnode.core.ledger.prices import usd_text
from meshnode.core.ledger.rounds import RoundLine, RoundsHead
from meshnode.store import rounds, usage_log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meshnode.core.commands.commands import Command
    from meshnode.core.ledger.rounds import Texts
    from meshnode.core.ledger.usage_log import Entry
    from meshnode.store.database import Database

PAGE_ROUNDS = 8
ROUNDS_MAX = 10_000  # of one session, the newest; the head says how many there are
PIECE_BYTES = 64 << 10  # as logs are read
SESSION_CHARS_MAX = 512


def read_rounds(database: Database, command: Command) -> Iterator[bytes]:
    """Answer a reading that was allowed, as JSON lines cut into pieces; raises RefusedError."""
    session = command.session or command.args.get("session")
    if not isinstance(session, str) or not 0 < len(session) <= SESSION_CHARS_MAX:
        raise RefusedError("the rounds of which session?")
    with_texts = command.args.get("messages") is not False
    return _pieces(database, session, with_texts=with_texts)


def rounds_of(
    database: Database, session: str, *, with_texts: bool
) -> tuple[RoundsHead, Iterator[RoundLine]]:
    """Return how many rounds a session has, and the newest of them in the order of their times."""
    seqs = database.run_now(usage_log.seqs_of_session, session)
    shown = seqs[-ROUNDS_MAX:]
    head = RoundsHead(rounds=len(seqs), following=len(shown))
    return head, _lines(database, shown, len(seqs) - len(shown), with_texts=with_texts)


def _lines(
    database: Database, shown: list[int], number: int, *, with_texts: bool
) -> Iterator[RoundLine]:
    for start in range(0, len(shown), PAGE_ROUNDS):
        page = shown[start : start + PAGE_ROUNDS]
        entries = database.run_now(usage_log.at_seqs, page)
        keys = [entry.record.idem_key for entry in entries.values()]
        texts = database.run_now(rounds.texts_of, keys)
        for seq in page:
            number += 1
            if seq in entries:  # one may have been pruned meanwhile
                said = texts.get(entries[seq].record.idem_key)
                yield _line(number, entries[seq], said, with_texts=with_texts)


def _line(number: int, entry: Entry, texts: Texts | None, *, with_texts: bool) -> RoundLine:
    record, nusd = entry.record, entry.charge.cost_nusd
    line = RoundLine(
        round=number,
        timestamp=rfc3339(record.at_s),
        input_tokens=record.usage.prompt,
        output_tokens=record.usage.output,
        reasoning_tokens=record.usage.reasoning,
        cached_tokens=record.usage.cache_read,
        cache_write_tokens=record.usage.cache_write_5m + record.usage.cache_write_1h,
        model=record.model,
        cost_usd=None if nusd is None else usd_text(nusd),
        kept=texts is not None,
    )
    if texts is None:
        return line
    line = msgspec.structs.replace(
        line,
        has_tool_calls=bool(texts.tool_calls),
        response_type=texts.response_type,
        input_token_details=texts.input_token_details,
        output_token_details=texts.output_token_details,
    )
    if not with_texts:
        return line
    return msgspec.structs.replace(
        line,
        cut=texts.cut,
        messages=texts.messages,
        messages_left_out=texts.messages_left_out or UNSET,
        question=texts.question,
        answer=texts.answer,
        reasoning=texts.reasoning,
        tool_calls=texts.tool_calls,
    )


def _pieces(database: Database, session: str, *, with_texts: bool) -> Iterator[bytes]:
    head, rounds_shown = rounds_of(database, session, with_texts=with_texts)
    waiting = msgspec.json.encode(head) + b"\n"
    for one in rounds_shown:
        waiting += msgspec.json.encode(one) + b"\n"
        whole = len(waiting) - len(waiting) % PIECE_BYTES
        for start in range(0, whole, PIECE_BYTES):
            yield waiting[start : start + PIECE_BYTES]
        waiting = waiting[whole:]
    if waiting:
        yield waiting
