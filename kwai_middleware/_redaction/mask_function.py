"""The app's own mask: checked, or found by its name."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Callable
from types import BuiltinFunctionType, FunctionType
from typing import Any, Final, cast

from kwai_middleware.errors import ConfigurationError

__all__ = ["MaskFunction", "checked_mask", "imported_mask", "name_of"]

MaskFunction = Callable[[str], str]

_PATH: Final = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*):([^\W\d]\w*(?:\.[^\W\d]\w*)*)")


def checked_mask(label: str, mask: object) -> None:
    """Refuse what cannot be called with a text, or gives its answer only later.

    Raises:
        ConfigurationError: It is neither None nor a plain function; the message begins with `label`.
    """
    if mask is None:
        return
    if not callable(mask):
        raise ConfigurationError(f"{label}: expected a function that takes a text and returns one, or None")
    if _is_async(mask) or _is_async(getattr(mask, "__call__", None)):  # noqa: B004 - asked for its kind, not whether
        raise ConfigurationError(f"{label}: an async function cannot be called on the recording thread")
    try:
        hash(mask)
    except TypeError:
        raise ConfigurationError(
            f"{label}: must be hashable, as functions are, for equal settings to be found"
        ) from None


def imported_mask(variable: str, path: str) -> object:
    """Return what `package.module:function` names. Imports the module.

    Raises:
        ConfigurationError: There is no such thing; the message names the variable and the module only.
    """
    found = _PATH.fullmatch(path)
    if found is None:
        raise ConfigurationError(f"{variable}: expected package.module:function")
    module, names = found.groups()
    try:
        imported: object = importlib.import_module(module)
    except Exception as error:  # noqa: BLE001 - the module's own code runs
        raise ConfigurationError(f"{variable}: importing {module} failed ({type(error).__name__})") from None
    try:
        mask: object = functools.reduce(getattr, names.split("."), imported)
    except Exception:  # noqa: BLE001 - the app's own code may run, in a property or in a module's __getattr__
        mask = None
    if not callable(mask):
        raise ConfigurationError(f"{variable}: {module} has no function of that name")
    return mask


def name_of(mask: MaskFunction) -> str:
    """Return what people call the function. Runs no code of the app's."""
    inner: Any = mask
    while isinstance(inner, functools.partial):
        inner = cast("Any", inner).func
    # Not `isroutine`: an object with a `__get__`, as decorators make them, counts as one and may have no name.
    function = inner.__func__ if inspect.ismethod(inner) else inner
    has_name = isinstance(function, FunctionType | BuiltinFunctionType)
    return function.__qualname__ if has_name else str(type(inner).__qualname__)


def _is_async(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
