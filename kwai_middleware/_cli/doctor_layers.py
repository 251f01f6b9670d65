"""What stands around an app, from the server's side inwards: middleware, wrappers, and the apps mounted in it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from starlette.applications import Starlette
from starlette.middleware import Middleware

from kwai_middleware._inbound.arguments import Arguments
from kwai_middleware.asgi import ASGIMiddleware
from kwai_middleware.errors import ConfigurationError
from kwai_middleware.wsgi import WSGIMiddleware

__all__ = ["Layer", "Path", "is_flask", "paths_through"]

_INNER: Final = (
    "app",
    "wsgi_app",
    "asgi_app",
    "application",
    "wsgi_application",
    "other_asgi_app",
    "inner",
    "_app",
)
"""What wrappers call what they wrap."""

_DEEPEST: Final = 100


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One middleware.

    Attributes:
        kind: Its class, or the function that it is.
        instance: It; None where the framework makes it only when it is needed.
        holder: The framework's app that it was given to; None for what is wrapped around it.
        arguments: Of one of ours: what it was made with.
        error: Of one of ours: why it could not be made.
    """

    kind: Any
    instance: Any = None
    holder: Any = None
    arguments: Arguments | None = None
    error: str = ""

    @property
    def name(self) -> str:
        """What its code calls it."""
        return str(getattr(self.kind, "__name__", type(self.kind).__name__))

    @property
    def library(self) -> str:
        """The package that it is from."""
        return str(getattr(self.kind, "__module__", "")).partition(".")[0]

    @property
    def is_ours(self) -> bool:
        """Whether it is one of this library's doors."""
        return isinstance(self.kind, type) and issubclass(self.kind, ASGIMiddleware | WSGIMiddleware)


@dataclass(frozen=True, slots=True)
class Path:
    """All that a request passes on its way to an app, or to an app mounted in one.

    Attributes:
        mount: Where that is mounted; empty for the app itself.
        layers: From the outermost inwards.
        core: What is left when no more can be taken off.
    """

    mount: str
    layers: tuple[Layer, ...]
    core: Any

    @property
    def ours(self) -> list[int]:
        """Which of the layers are ours."""
        return [index for index, layer in enumerate(self.layers) if layer.is_ours]


def paths_through(app: Any) -> list[Path]:
    """Return the way to the app, and to each one mounted in it. Calls nothing of the app."""
    return list(_paths(app, (), "", frozenset()))


def is_flask(app: object) -> bool:
    """Whether it is an app of Flask's."""
    return any((kind.__module__, kind.__name__) == ("flask.app", "Flask") for kind in type(app).__mro__)


def _paths(app: Any, outer: tuple[Layer, ...], mount: str, seen: frozenset[int]) -> Iterator[Path]:
    layers, node, holder = list(outer), app, None
    while True:
        if id(node) in seen or len(layers) > _DEEPEST:
            yield Path(mount, tuple(layers), node)
            return
        seen |= {id(node)}
        if isinstance(node, Starlette):
            layers += [_given(each, node) for each in node.user_middleware]
            break
        served = _served_by(node)
        if served is not None:
            holder, node = node, served
            continue
        if holder is not None and getattr(node, "__self__", None) is holder:
            node = holder
            break
        if inspect.ismethod(node):
            node = node.__self__
            continue
        inner = _inner(node)
        if inner is None:
            break
        layers.append(_wrapped(node, holder))
        for prefix, mounted in _mapping(node, "mounts").items():
            yield from _paths(mounted, tuple(layers), f"{mount}{prefix}", seen)
        node = inner
    yield Path(mount, tuple(layers), node)
    for route in _routes(node):
        mounted = getattr(route, "app", None)
        if mounted is not None and hasattr(route, "routes"):
            yield from _paths(mounted, tuple(layers), f"{mount}{getattr(route, 'path', '')}", seen)


def _served_by(app: Any) -> Callable[..., Any] | None:
    """Return what Flask or Quart hand each request to, which middleware is put around."""
    for kind in type(app).__mro__:
        if kind.__module__ in ("flask.app", "quart.app"):
            return cast("Callable[..., Any]", app.wsgi_app if kind.__module__ == "flask.app" else app.asgi_app)
    return None


def _inner(wrapper: Any) -> Any:
    """Return what a wrapper wraps; None when it is none, or keeps that to itself."""
    if inspect.isfunction(wrapper):
        cells = zip(wrapper.__code__.co_freevars, wrapper.__closure__ or (), strict=True)
        kept: Mapping[str, Any] = {name: cell.cell_contents for name, cell in cells if _is_filled(cell)}
        found = [kept[name] for name in _INNER if callable(kept.get(name))]
        return found[0] if found else getattr(wrapper, "__wrapped__", None)
    for name in _INNER:
        with contextlib.suppress(Exception):  # a property of the app's own may do anything
            inner = getattr(wrapper, name, None)
            if callable(inner) and not isinstance(inner, type):
                return inner
    return None


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _given(middleware: Middleware, holder: Starlette) -> Layer:
    """Return a layer that Starlette makes when the app starts."""
    kind = cast("Any", middleware.cls)
    layer = Layer(kind, holder=holder)
    if not layer.is_ours:
        return layer
    try:
        made = kind(_nothing, *middleware.args, **middleware.kwargs)
    except ConfigurationError as error:
        return Layer(kind, holder=holder, error=str(error))
    except Exception as error:  # noqa: BLE001 - a wrong argument, or the app's own subclass
        return Layer(kind, holder=holder, error=f"it cannot be made ({type(error).__name__})")
    return Layer(kind, made, holder, made.arguments)


def _wrapped(instance: Any, holder: Any) -> Layer:
    if isinstance(instance, ASGIMiddleware | WSGIMiddleware):
        return Layer(type(instance), instance, holder, instance.arguments)
    return Layer(instance if inspect.isfunction(instance) else cast("Any", type(instance)), instance, holder)


def _mapping(node: Any, name: str) -> Mapping[str, Any]:
    found = getattr(node, name, None)
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else {}


def _routes(node: Any) -> list[Any]:
    found = getattr(node, "routes", None)
    return [*found] if isinstance(found, list) else []


async def _nothing(*_: Any) -> None:
    """Stands in for the app, and is never called."""
