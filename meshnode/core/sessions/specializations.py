"""What a specialization may be called.

Invariant: nothing new is called by a name with a comma, since tables and command lines write `a,b`
for two. What already is stays as it is: this is asked of what people say, never of rows.
"""

from __future__ import annotations

from meshnode.core.errors import UsageError

COMMA = ","
ONE_EACH = "two are two names: --spec a --spec b, in YAML and JSON [a, b]"


def check_specialization(name: str, hint: str = ONE_EACH) -> None:
    """Raise UsageError for what would read as several specializations."""
    if COMMA in name:
        raise UsageError(f"one specialization has no comma in its name: {name[:60]!r}", hint)
