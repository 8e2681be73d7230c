"""What a status line asks for anew, and what it leaves as it is kept."""

from types import SimpleNamespace

import pytest

from meshnode.client.home import Home
from session_mesh.commands import statusline
from session_mesh.statusline import kept

NOW_S = 1_795_176_000.0  # noon


@pytest.mark.parametrize("age_s", [kept.SOON_S, kept.LASTS_S - 1])
def test_a_transcript_that_grew_is_not_seen_where_only_the_mesh_was_asked(tmp_path, age_s):
    transcript = tmp_path / "s1.jsonl"
    transcript.write_text("{}\n")
    document = {"session_id": "s1", "transcript_path": str(transcript)}
    own = {"at": NOW_S - 0.5, "seen": kept.seen(document), "figures": {"usage_read": True}}
    found = {"sessions": {kept.key_of(document): own}, "mesh": {}}
    transcript.write_text("{}\n{}\n")
    call = SimpleNamespace(now_s=lambda: NOW_S, home=Home(tmp_path / "home"))
    assert statusline._is_refreshed(call, document, found)
    assert kept.lasting(found["mesh"], NOW_S + 1) == {}
    assert kept.of_session(found, document, NOW_S + age_s) is None
