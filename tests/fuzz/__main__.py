"""./dev fuzz: look for bytes that break a decoder, and keep what is found in tests/corpus.

Invariant: exit 0 says that nothing broke, 1 that something did and where its input is kept, 2 that
it was asked for wrongly.
"""

from __future__ import annotations

import argparse
import sys
from math import isfinite
from pathlib import Path
from warnings import simplefilter

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz import corpus
from fuzz.decoders import DECODERS
from fuzz.loop import fuzz


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    """Return what was asked for; exits 2 with a sentence if it cannot be done as asked."""
    parser = argparse.ArgumentParser(
        prog="./dev fuzz",
        description=__doc__,
        epilog=f"decoders: {', '.join(sorted(DECODERS))}",
        allow_abbrev=False,
    )
    parser.add_argument("decoder", nargs="*", help="which; default: all, one after the other")
    parser.add_argument(
        "--minutes", type=float, default=1.0, help="of CPU, for all of them together; default 1"
    )
    parser.add_argument("--seed", type=int, default=0, help="other numbers find other things")
    parser.add_argument("--discard", action="store_true", help="keep nothing in tests/corpus")
    chosen = parser.parse_args(words)
    for name in chosen.decoder:
        if name not in DECODERS:
            parser.error(f"{name!r} is no decoder: {', '.join(sorted(DECODERS))}")
    if not (isfinite(chosen.minutes) and chosen.minutes > 0):
        parser.error(f"--minutes must be more than 0, not {chosen.minutes}")
    return chosen


def main(words: list[str] | None = None) -> int:
    chosen = arguments(words)
    simplefilter("ignore")  # a library's opinion of certificates that nobody sane has made
    names = chosen.decoder or list(DECODERS)
    broke = 0
    for name in names:
        cpu_s = chosen.minutes * 60 / len(names)
        report = fuzz(name, DECODERS[name], cpu_s, chosen.seed, keeping=not chosen.discard)
        told = f"{name}: {report.runs:,} inputs in {report.cpu_s:.1f} s, {report.kept} kept"
        print(told, flush=True)  # noqa: T201 - the report
        for crash, raw in report.crashes.items():
            broke += 1
            print(f"  {crash.error} in {crash.place}: {raw[:80]!r}", flush=True)  # noqa: T201 - the report
    if broke:
        where = (
            "" if chosen.discard else f"; the inputs are in {corpus.ROOT.name}/*/{corpus.CRASH}*"
        )
        print(f"FAILED: {broke} {'crash' if broke == 1 else 'crashes'}{where}")  # noqa: T201 - the report
        return 1
    print(f"passed: nothing broke {len(names)} decoder{'s' * (len(names) != 1)}")  # noqa: T201 - the report
    return 0


if __name__ == "__main__":
    sys.exit(main())
