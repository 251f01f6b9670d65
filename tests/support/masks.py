"""Mask functions as an app would write them."""

from __future__ import annotations

NO_FUNCTION = "a text"


def hidden(text: str, instead: str = "hidden") -> str:
    """Show nothing of any text."""
    return instead


class Redactor:
    """Takes a word out of texts.

    Args:
        word: Which one.
    """

    def __init__(self, word: str = "word") -> None:
        self.word = word
        self.seen: list[str] = []

    def __call__(self, text: str) -> str:
        self.seen.append(text)
        return text.replace(self.word, "[gone]")

    def redact(self, text: str) -> str:
        """Do the same, as a method."""
        return self(text)

    @staticmethod
    def plain(text: str) -> str:
        """Take nothing out."""
        return text
