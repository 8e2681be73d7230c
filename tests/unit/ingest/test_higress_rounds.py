"""What the access log of Higress says was said."""

import json
from contextlib import closing
from pathlib import Path

import pytest

from meshnode.core.ledger.ledger import UsageRecord
from meshnode.ingest.higress import HigressReader, parse_line, parse_round

GOLDEN = Path(__file__).parents[2] / "golden" / "higress"
ALL = 1 << 30


def test_what_was_said_is_read_only_when_asked_for(tmp_path: Path):
    call = {
        "session_id": "s1",
        "input_token": 5,
        "output_token": 6,
        "question": "why?",
        "answer": 'say "because"',
        "messages": [{"role": "user", "content": "why?"}],
    }
    times = {"request_id": "r1", "start_time": "2026-02-01T09:30:15.123Z"}
    path = tmp_path / "access.log"
    path.write_text(json.dumps({"ai_log": json.dumps(call), **times}) + "\n")

    def rounds(session: str | None = None, *, asked: bool = True):
        with closing(HigressReader(str(path), session, with_rounds=asked)) as reader:
            return reader.read({}, ALL).batch.rounds

    assert rounds(asked=False) == ()
    [said] = rounds()
    record = said.record
    assert (record.idem_key, record.session, record.at_s) == ("higress:r1", "s1", 1769938215.123)
    assert (said.texts.question, said.texts.answer) == ("why?", 'say "because"')
    assert rounds("s2") == ()


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.log")), ids=lambda path: path.stem)
def test_any_line_that_counts_is_a_round(path: Path):
    for line in path.read_bytes().splitlines():
        record = parse_line(line, "", "f", 0)
        if isinstance(record, UsageRecord):
            assert parse_round(line, record).record is record
