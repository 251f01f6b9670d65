"""Several sources of an identity, or of keys, of which the first that has an answer counts."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final, cast, final

from kwai_middleware._inbound.callables import LazyIdentity
from kwai_middleware._inbound.request import InboundRequest
from kwai_middleware._unsettled import KeySource
from kwai_middleware.errors import ConfigurationError

__all__ = ["FirstOf", "early", "early_sources", "first_of", "late", "origin_of"]


@final
class FirstOf:
    """Asks one source after the other.

    Attributes:
        sources: Those that are asked when a request comes in.
        later: The one that is asked when the answer is needed; None without one.
    """

    __slots__ = ("later", "sources")

    def __init__(self, sources: tuple[Any, ...], later: LazyIdentity | KeySource | None) -> None:
        self.sources: Final = sources
        self.later: Final = later

    def __call__(self, request: InboundRequest) -> Any:
        """Return the first answer, or what has to be awaited for it; the last source's when there is none."""
        return self._ask(iter(self.sources), request)

    def _ask(self, sources: Iterator[Any], request: InboundRequest) -> Any:
        answer: Any = None
        for source in sources:
            answer = source(request)
            if inspect.isawaitable(answer):
                return self._await(answer, source, sources, request)
            if _is_one(answer):
                request.answered_by = source
                return answer
        return answer

    async def _await(
        self, awaitable: Awaitable[object], source: object, sources: Iterator[Any], request: InboundRequest
    ) -> Any:
        answer: Any = await awaitable
        following: Any
        for following in (source, *sources):
            if following is not source:
                answer = following(request)
                if inspect.isawaitable(answer):
                    answer = await answer
            if _is_one(answer):
                request.answered_by = following
                break
        return answer

    def __repr__(self) -> str:
        everything = self.sources if self.later is None else (*self.sources, self.later)
        return f"first_of({', '.join(map(repr, everything))})"


def first_of(*sources: Any) -> FirstOf:
    """Combine sources of an identity, or of keys: they are asked in the order given, and the first answer counts whole.

    Answers are never mixed: name, group and keys come from the same source as the identifier. A source
    has no answer when it returns None or no keys; one that refuses a request (a forged token, a header
    sent twice) ends the search, so that a broken proof never means "try a weaker one".

    Args:
        *sources: For `identify`: `HeaderIdentity`, `JWTIdentity`, `SignedIdentity`, callables, and last, since
            its answer is known only later, a `UserIdentity`. For `credentials`: `HeaderCredentials`, callables,
            and last a `KeyResolver`, which is asked only for a caller who has brought no keys.

    Raises:
        ConfigurationError: One of them is no such source, or one that answers later is not the last.

    Example:
        >>> from kwai_middleware import HeaderCredentials, HeaderIdentity
        >>> identify = first_of(HeaderIdentity(), lambda request: None)
    """
    flat = [inner for source in sources for inner in _flat(source)]
    late = [source for source in flat if isinstance(source, LazyIdentity | KeySource)]
    if len(late) > 1 or (late and flat[-1] is not late[0]):
        raise ConfigurationError(
            "first_of: UserIdentity and KeyResolver answer only when the app asks, after all others; put it last,"
            " and no more than one"
        )
    early = tuple(source for source in flat if source not in late)
    if not flat or not all(callable(source) and not isinstance(source, type) for source in early):
        raise ConfigurationError("first_of: callables that take the request, in the order in which they are asked")
    return FirstOf(early, late[0] if late else None)


def origin_of(source: object) -> str:
    """Return a few words that say what `source` is: never a value of a request."""
    known = getattr(source, "origin", None)
    if isinstance(known, str):
        return known
    named: Any = source if hasattr(source, "__qualname__") else type(source)
    return f"callable {named.__module__}.{named.__qualname__}"


def early_sources(source: object) -> Iterable[Any]:
    """Return what is asked when a request comes in."""
    if isinstance(source, FirstOf):
        return source.sources
    return () if source is None or late(source) is not None else (source,)


def late(source: object) -> object:
    """Return the source that answers only when it is asked later; None when there is none."""
    if isinstance(source, FirstOf):
        return source.later
    return source if isinstance(source, LazyIdentity | KeySource) else None


def early(source: Any, sources: tuple[Any, ...]) -> Callable[[InboundRequest], Any] | None:
    """Return what is asked when a request comes in; None when nothing is."""
    if len(sources) < 2:
        return sources[0] if sources else None
    return cast("Callable[[InboundRequest], Any]", source)


def _flat(source: Any) -> Iterator[Any]:
    if not isinstance(source, FirstOf):
        yield source
        return
    yield from source.sources
    if source.later is not None:
        yield source.later


def _is_one(answer: object) -> bool:
    return answer is not None and not (isinstance(answer, tuple | list) and not answer)
