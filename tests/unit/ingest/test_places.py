"""Where programs keep their logs when nobody says."""

from pathlib import Path

from meshnode.ingest.places import of_claude, of_codex, of_gemini


def test_the_usual_places_are_those_of_claude_code():
    home = Path("/srv/ada")
    usual = ["/srv/ada/.config/claude/projects", "/srv/ada/.claude/projects"]
    assert of_claude({}, home) == usual
    assert of_claude({"CLAUDE_CONFIG_DIR": " "}, home) == usual
    assert of_claude({"CLAUDE_CONFIG_DIR": "/a, /b"}, home) == ["/a", "/b"]
    assert of_claude({"XDG_CONFIG_HOME": "/x"}, home)[0] == "/x/claude/projects"


def test_the_usual_place_is_that_of_codex():
    assert of_codex({}, Path("/srv/ada")) == ["/srv/ada/.codex"]
    assert of_codex({"CODEX_HOME": "/c"}, Path("/srv/ada")) == ["/c"]


def test_the_usual_place_is_that_of_gemini():
    assert of_gemini({}, Path("/srv/ada")) == ["/srv/ada/.gemini/tmp"]
    assert of_gemini({"GEMINI_CLI_HOME": ""}, Path("/srv/ada")) == ["/srv/ada/.gemini/tmp"]
    assert of_gemini({"GEMINI_CLI_HOME": "/g"}, Path("/srv/ada")) == ["/g/.gemini/tmp"]
