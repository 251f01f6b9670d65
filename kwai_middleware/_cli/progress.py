"""How far something is: a bar on a terminal, and else a line now and then."""

from __future__ import annotations

import os
import sys
import time
from typing import Final

__all__ = ["ProgressBar"]

_BAR: Final = 30
_BETWEEN_LINES: Final = 10.0
_FALLBACK_WIDTH: Final = 80


class ProgressBar:
    """Written to standard error, so that the answer on standard output stays clean."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._next = 0.0
        self._drawn = ""

    def show(self, done: int, left: int, words: str) -> None:
        """Say how far it is: on a terminal at once, and else unless that was said a moment ago."""
        if self._is_terminal:
            self._draw(done, left, words)
        elif words != self._drawn and time.monotonic() >= self._next:
            self._next = time.monotonic() + _BETWEEN_LINES
            self._drawn = words
            print(words, file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.clear()
        print(text, file=sys.stderr, flush=True)

    def finish(self, done: int, left: int, words: str) -> None:
        """Show the last state, and leave it there."""
        if self._is_terminal:
            self._draw(done, left, words)
            print(file=sys.stderr, flush=True)
            self._drawn = ""

    def clear(self) -> None:
        """Take the bar off the terminal."""
        if self._is_terminal and self._drawn:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._drawn = ""

    def _draw(self, done: int, left: int, words: str) -> None:
        part = done / (done + left) if left else 1.0
        full = int(part * _BAR)
        # A longer one would go on in the next line, and stay there.
        line = f"[{'#' * full}{'.' * (_BAR - full)}] {int(part * 100):3}%  {words}"[: _width() - 1]
        self._drawn = line
        print(f"\r{line}\x1b[K", end="", file=sys.stderr, flush=True)


def _width() -> int:
    # A terminal may say that it has no columns at all.
    return os.get_terminal_size(sys.stderr.fileno()).columns or _FALLBACK_WIDTH
