"""Where the programs of this user keep their logs when nobody says; no reader is loaded for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

CLAUDE_VARIABLE, CODEX_VARIABLE = "CLAUDE_CONFIG_DIR", "CODEX_HOME"
GEMINI_VARIABLE = "GEMINI_CLI_HOME"


def of_claude(environment: Mapping[str, str], directory: Path) -> list[str]:
    """Name where transcripts are: in each of $CLAUDE_CONFIG_DIR, else in both usual places."""
    named = [one.strip() for one in environment.get(CLAUDE_VARIABLE, "").split(",")]
    named = [one for one in named if one]
    if named:
        return named
    config = environment.get("XDG_CONFIG_HOME") or str(directory / ".config")
    return [str(Path(config) / "claude" / "projects"), str(directory / ".claude" / "projects")]


def of_codex(environment: Mapping[str, str], directory: Path) -> list[str]:
    """Name the places where this user's rollouts may be."""
    return [environment.get(CODEX_VARIABLE) or str(directory / ".codex")]


def of_gemini(environment: Mapping[str, str], directory: Path) -> list[str]:
    """Name the place where this user's chats may be: what is named stands for the user's home."""
    return [str(Path(environment.get(GEMINI_VARIABLE) or directory) / ".gemini" / "tmp")]
