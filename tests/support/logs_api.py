"""A request-logs API whose every answer the test decides, also answers that no sandbox would give."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

from kwai_middleware._secret import Secret
from kwai_middleware._settings import Settings
from tests.support.processes import DEADLINE
from tests.support.raw_server import Connection, raw_server

KEY = "app-key-of-the-tests"

Answer = Callable[[dict[str, Any], int], bytes | None]
"""Gets the record and how often this record came before; None says nothing and waits until the client leaves."""


def answer(status: int, body: bytes = b"{}", **headers: str) -> bytes:
    """One HTTP answer as it goes over the wire."""
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def taken(entry: dict[str, Any], times: int) -> bytes:
    """What the vendor answers when all is well."""
    return answer(200, b'{"message":"log successful"}')


class LogsAPI:
    """What arrived, and what is answered; `answer` may be replaced at any time."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.url = ""
        self.connections = 0
        self.heads: list[bytes] = []
        self.arrived: list[str] = []
        """Id of each record, in order of arrival, each time that it came."""
        self._changed = threading.Condition()

    def settings(self, **more: Any) -> Settings:
        """Settings of an app that logs here."""
        return Settings(**{"api_key": Secret(KEY), "base_url": self.url, "request_timeout": DEADLINE, **more})

    def environment(self, **more: str) -> dict[str, str]:
        """The same, as environment variables for another process."""
        return {"KEYWORDSAI_API_KEY": KEY, "KEYWORDSAI_BASE_URL": self.url, **more}

    def wait(self, count: int, seconds: float = DEADLINE) -> list[str]:
        """Return the ids that arrived, as soon as there are `count`."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.arrived) >= count, seconds), f"{len(self.arrived)} arrived"
            return list(self.arrived)

    def serve(self, connection: Connection) -> None:
        """Handle one connection."""
        self.connections += 1
        while True:
            head, body = connection.request()
            entry = json.loads(body)
            record_id = entry["metadata"]["kwai_record_id"]
            with self._changed:
                times = self.arrived.count(record_id)
                self.arrived.append(record_id)
                self.heads.append(head)
                self._changed.notify_all()
            reply = self.answer(entry, times)
            if reply is None:
                connection.wait_until_closed()
                return
            connection.send(reply)


@contextlib.contextmanager
def logs_api(answer: Answer = taken) -> Iterator[LogsAPI]:
    """Run one until the block ends."""
    api = LogsAPI(answer)
    with raw_server(api.serve) as server:
        api.url = f"{server.url}/api"
        yield api
