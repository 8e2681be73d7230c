# ruff: noqa: T201, TID251 - a script beside its story: it prints, and has its own clock
"""Telling the story: chapters, sentences, commands, and checks that end in ✔ or ✘."""

import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Seen = TypeVar("Seen")

WIDTH = 96
LOOK_AGAIN_S = 0.15
BOLD, DIM, GREEN, RED = "1", "2", "32", "31"


class UnmetError(Exception):
    """What a check waits for is not there (yet); its text says what is there instead."""


def expect(condition: object, otherwise: str) -> None:
    """Raise UnmetError unless the condition holds."""
    if not condition:
        raise UnmetError(otherwise)


def until(look: Callable[[], Seen], within_s: float) -> Seen:
    """Look again and again until it raises UnmetError no more; the last one after `within_s`."""
    give_up_at_s = time.monotonic() + within_s
    while True:
        try:
            return look()
        except UnmetError as error:
            if time.monotonic() >= give_up_at_s:
                raise UnmetError(f"{error} (waited {within_s:g} s for it)") from error
        time.sleep(LOOK_AGAIN_S)


class Narrator:
    """Tells one tour on stdout, and counts its checks. `on_failure` hears of the first failure."""

    def __init__(self, on_failure: Callable[[], None]) -> None:
        self.passed = 0
        self.failed = 0
        self._on_failure = on_failure
        self._chapter = 0
        self._colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def chapter(self, title: str) -> None:
        """Begin a chapter."""
        self._chapter += 1
        self._tell("", self._in(BOLD, f"{self._chapter}. {title}"))

    def say(self, words: str) -> None:
        """Tell what is about to happen, or what was seen."""
        self._tell(textwrap.fill(words, WIDTH, initial_indent="   ", subsequent_indent="   "))

    def command(self, line: str) -> None:
        """Show a command as somebody would type it, after the name of the node."""
        self._tell(f"   {self._in(BOLD, line)}")

    def output(self, text: str) -> None:
        """Show what a command answered."""
        self._tell(*(self._in(DIM, f"   | {line}") for line in text.splitlines()))

    @contextmanager
    def check(self, claim: str) -> Iterator[None]:
        """Check a claim: the block raises UnmetError if it does not hold. The tour goes on."""
        try:
            yield
        except UnmetError as error:
            self._fail(claim, str(error))
        except (LookupError, TypeError, ValueError) as error:
            self._fail(claim, f"an answer is not made as promised: {error!r}")
        else:
            self.passed += 1
            self._tell(f" {self._in(GREEN, '✔')} {claim}")

    def verdict(self) -> bool:
        """Tell how the checks went; returns whether all passed."""
        total = self.passed + self.failed
        words = f"{self.passed} of {total} checks passed"
        self._tell("", self._in(RED if self.failed else GREEN, words))
        return not self.failed

    def _fail(self, claim: str, why: str) -> None:
        self.failed += 1
        self._tell(f" {self._in(RED, '✘')} {claim}", self._in(RED, f"   because: {why}"))
        if self.failed == 1:
            self._on_failure()

    def _in(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colours else text

    def _tell(self, *lines: str) -> None:
        for line in lines:
            print(line, flush=True)
