"""A request-logs API whose every answer the test decides, also answers that no sandbox would give."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from kwai_middleware._secret import Secret
from kwai_middleware._settings import Settings
from tests.support.processes import DEADLINE
from tests.support.raw_server import Connection, raw_server

KEY = "app-key-of-the-tests"


@dataclass(frozen=True)
class Request:
    """What came in one request.

    Attributes:
        kind: `create` for a single record.
        rows: The records.
        times: How often each of them came before.
        head: Request line and headers.
    """

    kind: Literal["create", "bulk"]
    rows: list[dict[str, Any]]
    times: list[int]
    head: bytes

    @property
    def ids(self) -> list[str]:
        """The id of each record."""
        return [row["metadata"]["kwai_record_id"] for row in self.rows]


Answer = Callable[[dict[str, Any], int], bytes | None]
"""Gets the record and how often this record came before; None says nothing and waits until the client leaves."""

BulkAnswer = Callable[[Request], bytes | None]
"""Gets the request; None as for an `Answer`."""


def answer(status: int, body: bytes = b"{}", **headers: str) -> bytes:
    """One HTTP answer as it goes over the wire."""
    lines = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def taken(entry: dict[str, Any], times: int) -> bytes:
    """What the vendor answers when all is well."""
    return answer(200, b'{"message":"log successful"}')


class LogsAPI:
    """What arrived, and what is answered; `answer` and `answer_bulk` may be replaced at any time.

    A bulk is answered by what `answer` says to its rows, unless there is an `answer_bulk`: a row
    that is answered 400, 413 or 422 is refused, any other failure is that of the whole request.
    """

    def __init__(self, answer: Answer, answer_bulk: BulkAnswer | None = None) -> None:
        self.answer = answer
        self.answer_bulk = answer_bulk
        self.url = ""
        self.connections = 0
        self.heads: list[bytes] = []
        self.requests: list[Request] = []
        """In order of arrival."""
        self.arrived: list[str] = []
        """Id of each record, in order of arrival, each time that it came."""
        self._times: Counter[str] = Counter()
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
            request = self._arrive(*connection.request())
            if request.kind == "create":
                reply = self.answer(request.rows[0], request.times[0])
            else:
                reply = (self.answer_bulk or self._answer_by_row)(request)
            if reply is None:
                connection.wait_until_closed()
                return
            connection.send(reply)

    def _arrive(self, head: bytes, body: bytes) -> Request:
        is_bulk = b"/bulk/ " in head.partition(b"\r\n")[0]
        rows = json.loads(body)["logs"] if is_bulk else [json.loads(body)]
        with self._changed:
            request = Request("bulk" if is_bulk else "create", rows, [], head)
            for record_id in request.ids:
                request.times.append(self._times[record_id])
                self._times[record_id] += 1
            self.arrived += request.ids
            self.heads.append(head)
            self.requests.append(request)
            self._changed.notify_all()
        return request

    def _answer_by_row(self, request: Request) -> bytes | None:
        errors: list[dict[str, object]] = []
        for index, (row, times) in enumerate(zip(request.rows, request.times, strict=True)):
            reply = self.answer(row, times)
            status = 0 if reply is None else int(reply.split(b" ", 2)[1])
            if reply is not None and status in (400, 413, 422):
                errors.append({"index": index, "detail": _detail(reply)})
            elif not 200 <= status < 300:
                return reply
        taken_rows = len(request.rows) - len(errors)
        account = {"success_count": taken_rows, "error_count": len(errors), "errors": errors}
        return answer(201 if taken_rows else 400, json.dumps(account).encode())


def _detail(reply: bytes) -> object:
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return json.loads(reply.partition(b"\r\n\r\n")[2])["detail"]
    return "refused"


@contextlib.contextmanager
def logs_api(answer: Answer = taken, answer_bulk: BulkAnswer | None = None) -> Iterator[LogsAPI]:
    """Run one until the block ends."""
    api = LogsAPI(answer, answer_bulk)
    with raw_server(api.serve) as server:
        api.url = f"{server.url}/api"
        yield api


@pytest.fixture
def api() -> Iterator[LogsAPI]:
    """A logs API that takes everything, until the test says otherwise."""
    with logs_api() as running:
        yield running
