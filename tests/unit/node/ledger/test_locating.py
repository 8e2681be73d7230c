"""Where logs are looked for: at what is named, also by a user whose home nobody knows."""

import pwd
from pathlib import Path

import pytest

from meshnode.core.errors import UsageError
from meshnode.ingest.higress import STANDARD_PATHS
from meshnode.ingest.places import CLAUDE_VARIABLE
from meshnode.node.ledger.locating import sources_at


@pytest.fixture
def homeless(monkeypatch):
    """A user whom a container was started as: without an entry, and without HOME."""

    def nobody(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("HOME", CLAUDE_VARIABLE, "CODEX_HOME", "GEMINI_CLI_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("homeless")
def test_who_has_no_home_that_is_known_has_no_logs_in_it():
    found, missing = sources_at((), ())
    assert {one.path for one in found} <= set(STANDARD_PATHS)
    assert missing == {}


@pytest.mark.usefixtures("homeless")
def test_who_asks_for_logs_in_a_home_that_is_not_known_is_told_that():
    found, missing = sources_at(("claude",), ())
    assert found == []
    assert "home directory that is known" in missing["claude"].message
    assert "HOME" in missing["claude"].hint


@pytest.mark.usefixtures("homeless")
def test_what_the_environment_names_needs_no_home(monkeypatch, tmp_path: Path):
    monkeypatch.setenv(CLAUDE_VARIABLE, str(tmp_path))
    found, missing = sources_at(("claude",), ())
    assert ([one.path for one in found], missing) == ([str(tmp_path)], {})


@pytest.mark.usefixtures("homeless")
def test_what_is_said_to_be_in_a_home_that_is_not_known_is_refused(monkeypatch):
    monkeypatch.setenv(CLAUDE_VARIABLE, "~/.claude")
    with pytest.raises(UsageError, match=CLAUDE_VARIABLE) as refused:
        sources_at((), ())
    assert "HOME" in refused.value.hint


@pytest.mark.usefixtures("homeless")
def test_logs_outside_a_home_that_is_not_known_are_found(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    place = tmp_path / "claude" / "projects"
    place.mkdir(parents=True)
    found, missing = sources_at(("claude",), ())
    assert ([one.path for one in found], missing) == ([str(place)], {})
