"""What is watched while a test runs: all logging, warnings, and the hooks for exceptions that nobody caught.

Only public hooks are used; each is handed on to whoever was there before, and put back at the end.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO

from kwai_middleware.testing._exceptions import texts_in_exception
from kwai_middleware.testing._search import texts_in

__all__ = ["exceptions_watched", "logging_watched", "warnings_watched"]

See = Callable[[Iterable[tuple[str, str]]], None]
"""Told pairs of a place and a text as they turn up."""

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class _Handler(logging.Handler):
    """Looks at records as any other handler could show them."""

    def __init__(self, see: See) -> None:
        super().__init__(logging.NOTSET)
        self._see = see
        self._inside = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a record; what is logged while looking at it is not looked at."""
        if not getattr(self._inside, "busy", False):
            self._inside.busy = True
            try:
                self._see(_texts_in_record(record))
            finally:
                self._inside.busy = False


def _texts_in_record(record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    where = f"log {record.name!r} ({record.levelname}, {record.filename}:{record.lineno})"
    with contextlib.suppress(Exception):  # arguments that do not fit: logging itself complains about them
        yield f"{where}: message", record.getMessage()
    for path, text in texts_in({"msg": record.msg, "args": record.args}):
        yield f"{where}: {path}", text
    extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    for path, text in texts_in(extra):
        yield f"{where}: extra {path}", text
    for name in ("name", "threadName", "processName", "taskName", "exc_text", "stack_info"):
        yield f"{where}: {name}", str(getattr(record, name, None))
    if record.exc_info and record.exc_info[1] is not None:
        for path, text in texts_in_exception(record.exc_info[1]):
            yield f"{where}: {path}", text


@contextlib.contextmanager
def logging_watched(see: See) -> Generator[None]:
    """Look at each log record that any handler could get, from debug on.

    The handler sits where propagation ends: at the root, and at each logger that does not propagate,
    also one that is made or configured later. The root's level is lowered to let everything through;
    a level that a logger was given by name stays.
    """
    handler = _Handler(see)
    root = logging.getLogger()
    made_by = logging.getLogRecordFactory()
    watched: list[logging.Logger] = []

    def watch(name: str) -> None:
        logger = logging.root.manager.loggerDict.get(name, root)
        if isinstance(logger, logging.Logger):
            while logger.propagate and logger.parent is not None:
                logger = logger.parent
            if handler not in logger.handlers:
                logger.addHandler(handler)
                watched.append(logger)

    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        # Before its record is handled: whoever configures logging in the meantime removes handlers.
        record = made_by(*args, **kwargs)
        watch(record.name)
        return record

    level, disabled = root.level, root.manager.disable
    logging.setLogRecordFactory(make)
    root.setLevel(logging.NOTSET + 1)
    logging.disable(logging.NOTSET)
    watch(root.name)
    try:
        yield
    finally:
        if logging.getLogRecordFactory() is make:
            logging.setLogRecordFactory(made_by)
        if root.level == logging.NOTSET + 1:
            root.setLevel(level)
        logging.disable(disabled)
        for logger in watched:
            logger.removeHandler(handler)


@contextlib.contextmanager
def exceptions_watched(see: See) -> Generator[None]:
    """Look at exceptions that nobody catches: of threads, of finalizers, of the program."""

    def look(where: str, error: BaseException | None) -> None:
        if error is not None:
            see((f"{where}: {path}", text) for path, text in texts_in_exception(error))

    in_threads, in_finalizers, in_program = threading.excepthook, sys.unraisablehook, sys.excepthook

    def thread_hook(args: threading.ExceptHookArgs) -> None:
        look("exception in a thread", args.exc_value)
        in_threads(args)

    def finalizer_hook(unraisable: sys.UnraisableHookArgs) -> None:
        look("exception nobody could raise", unraisable.exc_value)
        in_finalizers(unraisable)

    def program_hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        look("uncaught exception", error)
        in_program(kind, error, traceback)

    threading.excepthook, sys.unraisablehook, sys.excepthook = thread_hook, finalizer_hook, program_hook
    try:
        yield
    finally:
        # Whoever came later has ours in its chain, and is left in place.
        if threading.excepthook is thread_hook:
            threading.excepthook = in_threads
        if sys.unraisablehook is finalizer_hook:
            sys.unraisablehook = in_finalizers
        if sys.excepthook is program_hook:
            sys.excepthook = in_program


@contextlib.contextmanager
def warnings_watched(see: See) -> Generator[None]:
    """Look at warnings that are shown, or collected by pytest."""
    show = warnings.showwarning

    def look(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        see((f"warning ({Path(filename).name}:{lineno}){path}", text) for path, text in texts_in(message))
        show(message, category, filename, lineno, file, line)

    warnings.showwarning = look
    try:
        yield
    finally:
        if warnings.showwarning is look:
            warnings.showwarning = show
