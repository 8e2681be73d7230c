"""The line at the bottom of Claude Code: what its document says, and how all figures read.

Pure, and quick to load: it is called several times a second. Invariant: whatever the words in it,
a line is one line of at most WIDTH columns, and what is not known is left out, never guessed at.
"""

from math import isfinite
from typing import Any

from session_mesh.output.escaping import cut, escape, width_of
from session_mesh.output.words import tokens as shortened

WIDTH = 80
BAR = " | "
LOW, HIGH = 50, 80  # percent of the context: green below the first, red from the second
USD_MAX = 1e9  # of one session; more, or less than none: not believed
COUNT_MAX = 10**12
TEXT_CHARS_MAX = 4096  # of an id or a path; longer: not believed
MODEL_CHARS = 24  # of its name
MODEL_CHARS_FULL = 10  # where the line is full
BUDGET_CHARS = (20, 10)
SGR = {"green": "\x1b[32m", "yellow": "\x1b[33m", "red": "\x1b[31m"}
PLAIN = "\x1b[0m"
UNREAD = "usage not read yet"
# What is shortened where the line is too wide, this first, again and again.
SHRINKING = ["context", "model", "mesh", "session", "budget", "context", "model", "mesh", "today"]

Figures = dict[str, Any]
Forms = list[tuple[str, str]]  # of one part: words and their colour, the longest first


def said(document: Figures) -> Figures:
    """Return what Claude Code says of itself; None for what it does not say, or not so."""
    cost, model = _inner(document, "cost"), _inner(document, "model")
    usd = number(cost.get("total_cost_usd"), USD_MAX)
    return {
        "model": _text(model.get("display_name")) or _text(model.get("id")),
        "session_id": _text(document.get("session_id")),
        "session_cost_usd": None if usd is None else f"{usd:.6f}",
        "session_cost_source": None if usd is None else "claude",
        "context": _context(_inner(document, "context_window")),
        "exceeds_200k_tokens": document.get("exceeds_200k_tokens") is True,
    }


def transcript_in(document: Figures) -> str | None:
    """Return where Claude Code keeps what this session says, if it tells."""
    return _text(document.get("transcript_path"))


def _context(window: Figures) -> Figures:
    """Return tokens in the context, of how many, and the percentage that they are."""
    current = _inner(window, "current_usage")
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    counts = [number(current.get(name), COUNT_MAX) for name in names]
    tokens = sum(int(one) for one in counts if one is not None) if any(counts) else None
    size = number(window.get("context_window_size"), COUNT_MAX)
    percent = number(window.get("used_percentage"), COUNT_MAX)
    if percent is None and tokens is not None and size:
        percent = 100 * tokens / size
    return {
        "tokens": tokens,
        "size": int(size) if size else None,
        "percent": None if percent is None else round(percent, 1),
    }


def _inner(document: Figures, name: str) -> Figures:
    found = document.get(name)
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str | None:
    """Return a text that can be a name or a path, and not too long; None for all else."""
    if not isinstance(value, str) or not 0 < len(value) <= TEXT_CHARS_MAX or "\0" in value:
        return None
    try:
        value.encode()  # half a character, as JSON may have it, cannot be
    except UnicodeEncodeError:
        return None
    return value


def number(value: object, most: float) -> float | None:
    """Return a number from 0 to `most`; None for all else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value <= most and isfinite(value) else None


def composed(figures: Figures, *, colour: bool) -> str:
    """Return the line."""
    parts = {
        "model": _model(figures),
        "session": _session(figures),
        "today": _today(figures),
        "mesh": _mesh(figures),
        "budget": _budget(figures),
        "context": _shown(figures),
    }
    for name in SHRINKING:
        if _width(parts) <= WIDTH:
            break
        parts[name] = parts[name][1:] or parts[name]  # the last form stays
    shown = [forms[0] for forms in parts.values() if forms and forms[0][0]]
    if _width(parts) > WIDTH:
        return cut(BAR.join(text for text, _ in shown), WIDTH)
    return BAR.join(_painted(text, named if colour else "") for text, named in shown)


def _width(parts: dict[str, Forms]) -> int:
    shown = [forms[0][0] for forms in parts.values() if forms and forms[0][0]]
    return width_of(BAR.join(shown))


def _painted(text: str, named: str) -> str:
    return f"{SGR[named]}{text}{PLAIN}" if named else text


def _model(figures: Figures) -> Forms:
    name = escape(figures.get("model") or "Claude Code")
    short = name.partition(" (")[0]  # what follows is how large its context is, and the like
    chars = (name, MODEL_CHARS), (short, MODEL_CHARS), (short, MODEL_CHARS_FULL)
    return [(cut(text, most), "") for text, most in chars]


def _session(figures: Figures) -> Forms:
    usd = figures.get("session_cost_usd")
    return [] if usd is None else [(f"{money(usd)} session", ""), (money(usd), "")]


def _today(figures: Figures) -> Forms:
    if figures.get("usage_read") is False:
        return [(UNREAD, ""), ("", "")]
    spent = figures.get("today")
    return [(f"{_spent(spent)} today", ""), ("", "")] if spent else []


def _mesh(figures: Figures) -> Forms:
    spent, alive = figures.get("mesh_today"), figures.get("alive_sessions")
    counted = "" if alive is None else f"{alive}{'+' * bool(figures.get('more_alive'))} alive"
    if not spent:
        return [(counted, "")]
    heard, known = spent["nodes_heard"], spent["nodes_known"]
    is_full = heard >= known > 0
    cost = f"mesh {_spent(spent)}" + ("" if is_full else f" of {heard}/{known}")
    named = "" if is_full else "yellow"
    return [(f"{cost}, {counted}" if counted else cost, named), (cost, named), ("", "")]


def _budget(figures: Figures) -> Forms:
    pressed = figures.get("budgets") or []
    if not pressed:
        return []
    first, more = pressed[0], len(pressed) - 1
    held = first["held"]
    said = f" {first['percent']}%" + (f", {held} held" if held else "")
    said += f" +{more}" * bool(more)
    named = "yellow" if first["state"] == "warned" and not held else "red"
    return [(cut(escape(first["name"]), chars) + said, named) for chars in BUDGET_CHARS]


def _shown(figures: Figures) -> Forms:
    context = figures.get("context") or {}
    tokens, percent = context.get("tokens"), context.get("percent")
    if percent is None:
        exceeded = [("ctx >200k", "yellow")] if figures.get("exceeds_200k_tokens") else []
        return [(f"ctx {shortened(tokens)}", "")] if tokens is not None else exceeded
    named = "green" if percent < LOW else "yellow" if percent < HIGH else "red"
    count = "" if tokens is None else f" {shortened(tokens)}"
    return [(f"ctx{count} {percent:.0f}%", named), (f"ctx {percent:.0f}%", named), ("", "")]


def _spent(spent: Figures) -> str:
    """Show a sum; a plus says that something in it has no price."""
    return money(spent["cost_usd"]) + "+" * bool(spent["unpriced"])


def money(usd: str | None) -> str:
    """Show money in cents, below one in hundredths of it."""
    if usd is None:
        return "$?"
    amount = float(usd)
    return f"${amount:.4f}" if 0 < amount < 0.01 else f"${amount:.2f}"  # noqa: PLR2004 - a cent
