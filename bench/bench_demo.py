"""How long `./dev demo --once` takes after set-up."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from report import Figure, table

TOUR = Path(__file__).parent.parent / "examples" / "demo" / "tour.py"
LIMIT_S = 60.0


def main() -> None:
    """Measure and print."""
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, str(TOUR), "--once"], check=False, capture_output=True)
    seconds = time.perf_counter() - begin
    if done.returncode != 0:
        raise SystemExit(f"the tour failed:\n{done.stdout.decode()[-2000:]}")
    table("The demo", [Figure("./dev demo --once", seconds, "s", LIMIT_S)])


if __name__ == "__main__":
    main()
