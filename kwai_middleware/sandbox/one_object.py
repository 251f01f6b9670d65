"""Answers that are one JSON object when they come in one piece."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Final

import msgspec

from kwai_middleware.sandbox.completions import filler_of
from kwai_middleware.sandbox.flavours import Flavoured

__all__ = ["OneObject"]

_SPACE: Final = b" " * 32_768


class OneObject(Flavoured):
    """An answer that is one JSON object when it comes in one piece."""

    id_prefix = ""

    @abstractmethod
    def body(self) -> dict[str, object]:
        """Return the object."""

    def whole(self) -> bytes:
        """Return the answer in one piece; one that failed is nothing but the error."""
        body = msgspec.json.encode(self.body() if self.answer.failure is None else {"error": self.error()})
        return body[: len(body) * 2 // 3] + b"..." if self.answer.is_malformed else body

    def parts(self) -> Iterator[bytes]:
        """Yield the answer in pieces, however long it is: the space before it is part of it."""
        yield from filler_of(self.answer.filler, _SPACE)
        yield self.whole()

    def events(self) -> Iterator[bytes]:
        """Yield no event: what cannot be streamed has none."""
        return iter(())
