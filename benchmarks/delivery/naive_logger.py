"""What one writes by hand to be out of the request's way: a queue, and a thread that parses, dumps and posts."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any

__all__ = ["NaiveLogger"]


class NaiveLogger:
    """Posts one record after the other, from memory, unmasked.

    Args:
        port: Of the logs API on loopback.
        loads: Parses JSON.
        dumps: Makes it.
    """

    def __init__(self, port: int, loads: Callable[[bytes], Any], dumps: Callable[[Any], bytes]) -> None:
        self._queue: queue.Queue[tuple[bytes, bytes, str] | None] = queue.Queue()
        self._connection = HTTPConnection("127.0.0.1", port)
        self._loads = loads
        self._dumps = dumps
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, request: bytes, answer: bytes, customer: str) -> None:
        """Hand over what was sent, what came back, and for whom."""
        self._queue.put((request, answer, customer))

    def flush(self) -> None:
        """Wait until all of it is posted."""
        self._queue.join()

    def close(self) -> None:
        """End the thread."""
        self._queue.put(None)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while (taken := self._queue.get()) is not None:
            request, answer, customer = taken
            sent, got = self._loads(request), self._loads(answer)
            entry = {
                "model": got["model"],
                "prompt_messages": sent["messages"],
                "completion_message": got["choices"][0]["message"],
                "usage": got["usage"],
                "cost": got["usage"]["cost"],
                "customer_params": {"customer_identifier": customer},
            }
            headers = {"authorization": "Bearer app-key", "content-type": "application/json"}
            self._connection.request("POST", "/api/request-logs/create/", self._dumps(entry), headers)
            self._connection.getresponse().read()
            self._queue.task_done()
