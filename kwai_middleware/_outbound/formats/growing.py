"""Objects that a stream sends in pieces: tool calls, reasoning details, audio."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, Final

from kwai_middleware._outbound.formats import tolerant
from kwai_middleware._outbound.formats.interface import GAP
from kwai_middleware._pace import breathe
from kwai_middleware._redaction import mask_end, mask_start
from kwai_middleware._secret import Secret

__all__ = [
    "Growing",
    "GrowingList",
    "begins_another_call",
    "begins_another_detail",
    "detail_place",
    "joined_text",
    "tool_call_place",
]

_MOST_ITEMS: Final = 1000
_AT_ONCE: Final = 1000
_GROWING_TEXTS: Final = frozenset(("arguments", "data", "input", "summary", "text", "transcript"))


_DEEPEST: Final = 4
"""Objects within objects that grow; the deepest text that does is a tool call's `function.arguments`."""


class Growing:
    """One object. Texts are collected and joined once, so that it takes linear time."""

    __slots__ = ("_is_skipped", "_levels", "_members", "_texts")

    def __init__(self, levels: int = _DEEPEST) -> None:
        self._is_skipped = False
        self._levels = levels
        self._members: dict[str, Any] = {}
        self._texts: dict[str, list[str]] = {}

    def add(self, piece: dict[str, Any]) -> None:
        """Add a piece: known texts grow, objects are merged, of all else the last value counts."""
        for name, value in piece.items():
            if isinstance(value, str) and name in _GROWING_TEXTS:
                self._texts.setdefault(name, [GAP] if self._is_skipped else []).append(value)
            elif self._levels > 1 and (members := tolerant.members_of(value)):
                inner = self._members.get(name)
                if not isinstance(inner, Growing):
                    inner = self._members[name] = Growing(self._levels - 1)
                    inner._is_skipped = self._is_skipped
                inner.add(members)
            elif value is not None:
                self._members[name] = value

    def get(self, name: str) -> Any:
        """Return a member that does not grow."""
        return self._members.get(name)

    def skip(self) -> None:
        """Note that pieces may be missing from here on."""
        self._is_skipped = True
        for texts in self._texts.values():
            texts.append(GAP)
        for value in self._members.values():
            if isinstance(value, Growing):
                value.skip()

    def joined(self, secrets: tuple[Secret, ...] = ()) -> dict[str, Any]:
        """Return the object as far as it came."""
        members = {
            name: value.joined(secrets) if isinstance(value, Growing) else value
            for name, value in self._members.items()
        }
        return members | {name: joined_text(texts, secrets) for name, texts in self._texts.items()}


class GrowingList:
    """Several such objects, interleaved; at most a thousand, the rest is left out.

    Args:
        place_of: Which object a piece belongs to.
        begins_another: Whether a piece begins another object, though one is known at its place.
    """

    __slots__ = ("_begins_another", "_is_skipped", "_items", "_last", "_place_of", "_places")

    def __init__(
        self,
        place_of: Callable[[dict[str, Any]], Hashable],
        begins_another: Callable[[dict[str, Any], Growing], bool],
    ) -> None:
        self._is_skipped = False
        self._items: list[Growing] = []
        self._places: dict[Hashable, Growing] = {}
        self._last: Growing | None = None
        self._place_of = place_of
        self._begins_another = begins_another

    def add(self, pieces: Iterable[dict[str, Any]]) -> None:
        """Add what one chunk brings."""
        for piece in pieces:
            breathe()
            place = self._place_of(piece)
            item = self._last if place is None else self._places.get(place)
            if item is None or self._begins_another(piece, item):
                if len(self._items) >= _MOST_ITEMS:
                    continue
                item = Growing()
                if self._is_skipped and not piece.get("id"):
                    # Its beginning is among what was not kept.
                    item.skip()
                self._items.append(item)
            if place is not None:
                self._places[place] = item
            self._last = item
            item.add(piece)

    def skip(self) -> None:
        """Note that pieces may be missing from here on."""
        self._is_skipped = True
        for item in self._items:
            item.skip()

    def joined(self, secrets: tuple[Secret, ...] = ()) -> list[dict[str, Any]]:
        """Return the objects in the order in which they began."""
        joined: list[dict[str, Any]] = []
        for item in self._items:
            joined.append(item.joined(secrets))
            breathe()
        return joined


def joined_text(pieces: list[str], secrets: tuple[Secret, ...]) -> str:
    """Join the pieces of a text; at a gap, mask what is left of a key on either side. Nothing but a gap is nothing."""
    place = _place_of_gap(pieces)
    if place is None:
        return "".join(pieces)
    head, tail = "".join(pieces[:place]), "".join(pieces[place + 1 :])
    return f"{mask_end(head, secrets)}{GAP}{mask_start(tail, secrets)}" if head or tail else ""


def _place_of_gap(pieces: list[str]) -> int | None:
    for start in range(0, len(pieces), _AT_ONCE):
        some = pieces[start : start + _AT_ONCE]
        if GAP in some:
            # A model may say the same: the one that was put there is that very object.
            for place, piece in enumerate(some, start):
                if piece is GAP:
                    return place
        breathe()
    return None


def tool_call_place(piece: dict[str, Any]) -> Hashable:
    """Tool calls are told apart by `index`; None stands for the last one."""
    index = piece.get("index")
    return index if isinstance(index, int) else None


def detail_place(piece: dict[str, Any]) -> Hashable:
    """Reasoning details are told apart by `index` and `type`."""
    index, kind = piece.get("index"), piece.get("type")
    return index if isinstance(index, int) else None, kind if isinstance(kind, str) else None


def begins_another_detail(piece: dict[str, Any], item: Growing) -> bool:
    """Some models count every detail as number 0: then a new id is a new detail."""
    identifier = piece.get("id")
    return bool(identifier) and item.get("id") not in (None, identifier)


def begins_another_call(piece: dict[str, Any], item: Growing) -> bool:
    """Some servers count every tool call as number 0: then a new id with a new name is a new call."""
    return begins_another_detail(piece, item) and bool(tolerant.members_of(piece.get("function")).get("name"))
