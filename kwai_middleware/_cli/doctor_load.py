"""Importing the app that is to be looked at, as its server does, and finding the lines of its code."""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kwai_middleware._cli.doctor_findings import Finding

__all__ = ["Loaded", "Place", "SourceLines", "load", "place_of"]

_MOST_LINES: Final = 3
_FOREIGN: Final = ("site-packages", "dist-packages")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an app is, as a server is told: `module:app`, `module:factory()`.

    Attributes:
        module: The module's name.
        attribute: The name in it, with dots.
        is_factory: Whether that is a function that returns the app.
    """

    module: str
    attribute: str
    is_factory: bool

    @property
    def variable(self) -> str:
        """What the app is called in the lines that are to be written."""
        return "app" if self.is_factory else self.attribute


@dataclass(frozen=True, slots=True)
class Loaded:
    """An app that was imported, or why it could not be.

    Attributes:
        app: It; None when there is none.
        finding: Which of the two it was.
    """

    app: Any
    finding: Finding


def place_of(text: str, *, is_factory: bool) -> Place | None:
    """Read what a server is told; None when it is nothing that could be imported."""
    module, _, attribute = text.partition(":")
    is_called = attribute.endswith("()")
    attribute = attribute.removesuffix("()")
    if not all(name.isidentifier() for name in (*module.split("."), *attribute.split("."))):
        return None
    return Place(module, attribute, is_factory or is_called)


def load(place: Place, app_dir: str) -> Loaded:
    """Import the app, and call its factory where it has one. Nothing else of it runs."""
    sys.path.insert(0, os.path.abspath(app_dir))
    # What a module prints when it is imported is no part of the answer.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            module = importlib.import_module(place.module)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the app's own code runs
            return _failed(f"importing {place.module}", error)
        try:
            app: Any = functools.reduce(getattr, place.attribute.split("."), module)
        except AttributeError:
            what = f"{place.module} has no attribute {place.attribute!r}"
            return Loaded(None, Finding("app", "error", "app-not-found", what, str(getattr(module, "__file__", ""))))
        try:
            app = app() if place.is_factory else app
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the app's own code runs
            return _failed(f"calling {place.attribute}()", error)
    if not callable(app):
        what = f"{place.module}:{place.attribute} is a {type(app).__name__}, which no server can call"
        return Loaded(None, Finding("app", "error", "app-not-callable", what))
    kind = f"{type(app).__module__.partition('.')[0]}'s {type(app).__qualname__}"
    return Loaded(app, Finding("app", "ok", "app-imported", f"{place.module}:{place.attribute} is there ({kind})"))


class SourceLines:
    """The lines of the app's own modules: those that lie where the app does, and are in no library."""

    def __init__(self, app_dir: str) -> None:
        self._folder = os.path.abspath(app_dir)

    def of(self, name: str) -> str:
        """Return where `name` is called, or given to `add_middleware`, as `file:line`; empty when nobody can tell."""
        found = sorted({(path, call.lineno) for path, call in self._calls if _makes(call, name)})
        return ", ".join(f"{path}:{line}" for path, line in found[:_MOST_LINES])

    @functools.cached_property
    def _calls(self) -> list[tuple[str, ast.Call]]:
        calls: list[tuple[str, ast.Call]] = []
        for path in self._files():
            with contextlib.suppress(OSError, SyntaxError, ValueError):
                tree = ast.parse(path.read_bytes())
                calls += [(os.path.relpath(path), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
        return calls

    def _files(self) -> Iterator[Path]:
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if not isinstance(file, str) or not file.endswith(".py") or not file.startswith(self._folder):
                continue
            path = Path(os.path.abspath(file))
            is_own = path.is_relative_to(self._folder) and not any(part in path.parts for part in _FOREIGN)
            if is_own and not getattr(module, "__name__", "").startswith("kwai_middleware"):
                yield path


def _makes(call: ast.Call, name: str) -> bool:
    if _last(call.func) == name:
        return True
    return _last(call.func) in ("add_middleware", "Middleware") and any(_last(each) == name for each in call.args[:1])


def _last(node: ast.AST) -> str | None:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def _failed(what: str, error: BaseException) -> Loaded:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    if isinstance(error, SyntaxError) and error.filename:
        where = f"{os.path.relpath(error.filename)}:{error.lineno}"
    else:
        own = [frame for frame in frames if not any(part in Path(frame.filename).parts for part in _FOREIGN)]
        last = own[-1] if own else frames[-1]
        is_app = last.filename != __file__ and last.filename != importlib.__file__
        where = f"{os.path.relpath(last.filename)}:{last.lineno}" if is_app else ""
    words = str(error).strip().splitlines()
    told = f"{type(error).__name__}: {words[-1].strip()}" if words else type(error).__name__
    return Loaded(None, Finding("app", "error", "app-import", f"{what} failed with {told}", where))
