"""`spool drain`: send what waits for this environment's app, and show how far it is."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Generator
from typing import Any, Final

from kwai_middleware._cli.output import complain, counted, print_json, say, shown
from kwai_middleware._cli.progress import ProgressBar
from kwai_middleware._cli.spool_files import SpoolFiles
from kwai_middleware._delivery.disk.inspection import Inspection
from kwai_middleware._delivery.draining import Draining, Ending, Progress
from kwai_middleware._secret import Secret

__all__ = ["run"]

_USAGE_ERROR: Final = 2
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_ENDINGS: Final[dict[Ending, str]] = {
    "nothing waits": "",
    "time is over": " The time (--timeout) is over.",
    "told to stop": " Stopped.",
    "refused": " The logs API refuses this app: check the API key and base_url.",
}


def run(asked: argparse.Namespace, files: SpoolFiles) -> int:
    """Drain each file in which something waits for this app; 1 when something is left of it, or was not delivered."""
    api_key, destination = files.settings.api_key, files.destination
    if api_key is None or destination is None:
        complain("there is no API key to send with: set KEYWORDSAI_API_KEY (or RESPAN_API_KEY) as the app has it")
        return _USAGE_ERROR
    logging.getLogger("kwai_middleware").addHandler(logging.NullHandler())
    drained = _Drain(files, api_key, time.monotonic() + asked.timeout, is_json=asked.json)
    with drained.until_told_to_stop():
        files.each(drained.drain)
    if asked.json:
        print_json({"files": drained.documents, "waiting_for_others": drained.others, "errors": files.unreadable})
    elif not files.is_empty_told():
        if not drained.documents and not files.unreadable:
            say(f"Nothing waits for {shown(destination.base_url)} with key {files.name_of(destination)}.")
        if drained.others:
            say(f"{counted(drained.others, 'record')} for another API key or base_url: not for this app to send.")
    return int(drained.is_something_left)


class _Drain:
    """One run over all files."""

    def __init__(self, files: SpoolFiles, api_key: Secret, until: float, *, is_json: bool) -> None:
        self.documents: list[dict[str, Any]] = []
        self.others = 0
        self.is_something_left = False
        self._files = files
        self._api_key = api_key
        self._until = until
        self._is_json = is_json
        self._is_stopped = False
        self._bar = ProgressBar()
        self._told: list[str] = []

    @contextlib.contextmanager
    def until_told_to_stop(self) -> Generator[None]:
        """End after the requests under way at the first signal, and at once at the second."""
        before = {number: signal.signal(number, self._stop) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def drain(self, inspection: Inspection) -> None:
        """Drain one file."""
        states = inspection.states()
        self.others += sum(each.counters.pending for each in states if each.destination != self._files.destination)
        state = next((each for each in states if each.destination == self._files.destination), None)
        if state is None or not state.counters.pending:
            return
        self._bar.say(f"{shown(inspection.path)}: {counted(state.counters.pending, 'record')} to send")
        draining = Draining(inspection, state, self._files.settings, self._api_key, self._progressed)
        ending: Ending = "told to stop"
        try:
            with contextlib.suppress(KeyboardInterrupt):
                ending = draining.run(self._until, lambda: self._is_stopped)
        finally:
            self._bar.clear()
        self._report(inspection.path, draining.progress(), ending)

    def _progressed(self, progress: Progress) -> None:
        if progress.elsewhere is not None:
            self._tell(f"Process {progress.elsewhere.pid or '?'} ships these records already: watching it.")
        if progress.last_error is not None:
            self._tell(f"It fails: {shown(progress.last_error)}")
        self._bar.show(progress.delivered, progress.pending, _in_words(progress))

    def _tell(self, text: str) -> None:
        """Say something once, unless other things were said since."""
        if text not in self._told[-2:]:
            self._told.append(text)
            self._bar.say(text)

    def _report(self, path: str, progress: Progress, ending: Ending) -> None:
        undelivered = progress.pending + progress.rejected + progress.evicted
        self.is_something_left = self.is_something_left or bool(undelivered)
        self._bar.finish(progress.delivered, progress.pending, _in_words(progress))
        self.documents.append(
            {
                "path": path,
                "ending": ending,
                "delivered": progress.delivered,
                "pending": progress.pending,
                "rejected": progress.rejected,
                "evicted": progress.evicted,
                "last_error": progress.last_error,
            }
        )
        if self._is_json:
            return
        text = f"{_in_words(progress).capitalize()}.{_ENDINGS[ending]}"
        if undelivered and progress.last_error is not None:
            text += f" Last error: {shown(progress.last_error)}"
        if progress.rejected:
            text += " See 'spool rejected'."
        say(text)

    def _stop(self, number: int, frame: object) -> None:
        if self._is_stopped:
            raise KeyboardInterrupt
        self._is_stopped = True
        # Not by print: this may have come in the middle of one.
        os.write(sys.stderr.fileno(), b"\nEnding after the requests under way; once more ends at once.\n")


def _in_words(progress: Progress) -> str:
    words = [f"delivered {progress.delivered:,}", f"{progress.pending:,} left"]
    if progress.rejected:
        words.append(f"{progress.rejected:,} rejected")
    if progress.evicted:
        words.append(f"{progress.evicted:,} given up for their age")
    return ", ".join(words)
