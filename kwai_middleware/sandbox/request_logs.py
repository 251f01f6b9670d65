"""The request-logs API: single and bulk, with the vendor's checks, limits and errors."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import msgspec
from starlette.types import Receive, Scope, Send

from kwai_middleware.sandbox.connection import ClientLeft, Connection
from kwai_middleware.sandbox.entries import LogEntry, LogRequestEntry
from kwai_middleware.sandbox.gateway import INVALID_KEY, error_body
from kwai_middleware.sandbox.json_types import is_object, json_or_none
from kwai_middleware.sandbox.keys import bearer_key, fingerprint
from kwai_middleware.sandbox.log_rows import errors_in, kept_of
from kwai_middleware.sandbox.log_type import refusal
from kwai_middleware.sandbox.state import LogsMode, SandboxState

__all__ = ["MOST_ROWS", "MOST_ROW_BYTES", "RequestLogs"]

MOST_ROWS: Final = 500
MOST_ROW_BYTES: Final = 20_000_000

_MINUTE: Final = 60.0
_TOO_LARGE: Final = "Payload too large: a log has at most 20 MB"
_NO_KEY: Final = "Authentication credentials were not provided."
_HUGE: Final = 10_000_000


class RequestLogs:
    """One endpoint of the API.

    Args:
        state: Where records go.
        endpoint: `create` (also its older spelling) or `bulk`.
        answers_span: Whether a single answers the stored row, as the newer spelling does.
    """

    def __init__(self, state: SandboxState, endpoint: str, *, answers_span: bool = False) -> None:
        self.state = state
        self.endpoint = endpoint
        self.answers_span = answers_span

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Receive the request whole, and take its records unless told to misbehave."""
        state = self.state
        connection = Connection(scope, receive, send, pauses=state.pauses, reset=state.reset_connection)
        try:
            body = await connection.body()
        except ClientLeft:
            return
        key = bearer_key(connection.header(b"authorization"))
        state.keys.remember(key)
        entry = LogRequestEntry(
            endpoint=self.endpoint,
            path=connection.path,
            headers=scope["headers"],
            posted_by=None if key is None else fingerprint(key),
            mode=state.logs_mode.mode,
            body_length=len(body),
        )
        state.log_requests.append(entry)

        def started(status: int) -> None:
            entry.status = status
            state.log_requests.wake()

        connection.on_start = started
        try:
            mode = self._next_mode()
            if not await _misbehave(connection, mode):
                status, answer, headers = self._take(entry, body, key)
                await _answer(connection, mode, status, answer, headers)
        except ClientLeft:
            await connection.cut()
        finally:
            connection.close()

    def _next_mode(self) -> LogsMode:
        mode = self.state.logs_mode
        if mode.times is not None:
            left = mode.times - 1
            self.state.logs_mode = replace(mode, times=left) if left else mode.afterwards()
        return mode

    def _take(self, entry: LogRequestEntry, body: bytes, key: str | None) -> tuple[int, bytes, list[tuple[str, str]]]:
        """Check a request and keep its records; returns status, body and headers of the answer."""
        if key is None or key.endswith("-dead"):
            return 401, error_body(_NO_KEY if key is None else INVALID_KEY), []
        if _holds(body, self.state.logs_mode.poison):
            return 500, error_body("Internal server error", error_code="INTERNAL_ERROR"), []
        if self.endpoint == "bulk":
            return self._take_bulk(entry, body, key)
        entry.rows = 1
        if len(body) > MOST_ROW_BYTES:
            return 413, error_body(_TOO_LARGE), []
        row = json_or_none(body)
        if not is_object(row):
            return 400, error_body("Invalid request format"), []
        if errors := self._errors(row, body):
            return 422, error_body("Validation error", errors=errors), []
        log_id, stored = self._keep(row, len(body), key)
        entry.accepted = 1
        if not self.answers_span:
            return 200, b'{"message":"log successful"}', []
        span = {"id": log_id, "unique_id": log_id, "status": stored["status"]}
        span |= {name: stored.get(name) for name in ("model", "cost", "latency")}
        return 201, msgspec.json.encode(span), []

    def _take_bulk(self, entry: LogRequestEntry, body: bytes, key: str) -> tuple[int, bytes, list[tuple[str, str]]]:
        if (wait := self._over_limit(key)) is not None:
            seconds = math.ceil(wait)
            return 429, error_body("Rate limit exceeded", retry_after=seconds), [("retry-after", str(seconds))]
        try:
            raw_rows = msgspec.json.decode(body, type=dict[str, list[msgspec.Raw]])["logs"]
        except (msgspec.DecodeError, UnicodeDecodeError, KeyError):
            return 400, error_body('Invalid request format: expected {"logs": [...]}'), []
        entry.rows = len(raw_rows)
        if not 1 <= len(raw_rows) <= MOST_ROWS:
            return 400, error_body(f"logs: 1 to {MOST_ROWS} rows"), []
        refused: list[dict[str, object]] = []
        for index, raw in enumerate(map(bytes, raw_rows)):
            row = json_or_none(raw)
            if len(raw) > MOST_ROW_BYTES:
                refused.append({"index": index, "detail": _TOO_LARGE})
            elif not is_object(row):
                refused.append({"index": index, "detail": "Invalid request format"})
            elif errors := self._errors(row, raw):
                refused.append({"index": index, "detail": "Validation error", "errors": errors})
            else:
                self._keep(row, len(raw), key)
        entry.accepted = len(raw_rows) - len(refused)
        answer = {"success_count": entry.accepted, "error_count": len(refused), "errors": refused}
        return 201 if entry.accepted else 400, msgspec.json.encode(answer), []

    def _errors(self, row: Mapping[str, object], raw: bytes) -> dict[str, list[str]]:
        if _holds(raw, self.state.logs_mode.unwanted):
            return {"non_field_errors": ["This record is not wanted."]}
        return errors_in(row)

    def _over_limit(self, key: str) -> float | None:
        """Seconds until this key may post in bulk again; None when it may now, which is then counted."""
        now = self.state.clock()
        latest = self.state.bulk_requests.setdefault(fingerprint(key), deque())
        while latest and latest[0] <= now - _MINUTE:
            latest.popleft()
        if len(latest) >= self.state.logs_mode.bulk_per_minute:
            return latest[0] + _MINUTE - now if latest else _MINUTE
        latest.append(now)
        return None

    def _keep(self, row: Mapping[str, object], size: int, key: str) -> tuple[str, dict[str, object]]:
        stored, dropped = kept_of(row)
        lost = refusal(row)
        entry = LogEntry(
            endpoint=self.endpoint,
            posted_by=fingerprint(key),
            log_id=self.state.new_log_id(),
            row=row,
            stored=stored if lost is None else None,
            dropped=dropped if lost is None else (),
            lost=lost,
            size=size,
        )
        self.state.logs.append(entry)
        # Answered as if it were stored: the vendor looks at the rest of it only later.
        return entry.log_id, stored


def _holds(body: bytes, text: str | None) -> bool:
    return text is not None and text.encode() in body


async def _answer(
    connection: Connection, mode: LogsMode, status: int, answer: bytes, headers: list[tuple[str, str]]
) -> None:
    """Answer what was done, in a way that may not be worth much."""
    if mode.mode == "garbage":
        answer = b"<html>\xff</html"
    elif mode.mode == "huge":
        # Still JSON: the beginning promises an account, and its end is far away.
        answer = answer[:-1] + b',"filler":"' + b"." * _HUGE + b'"}'
    elif mode.mode == "cut":
        await connection.start(status, headers=headers, body_length=len(answer))
        await connection.write(answer[: len(answer) // 2])
        await connection.cut()
        return
    await connection.answer(status, answer, headers)


async def _misbehave(connection: Connection, mode: LogsMode) -> bool:
    """Do what the mode asks for; returns whether that was the whole answer."""
    if mode.mode == "slow":
        await connection.pause(mode.seconds)
    elif mode.mode == "hang":
        await connection.pause(None)
    elif mode.mode == "reset":
        await connection.cut()
        return True
    elif mode.mode.isdecimal():
        await _refuse(connection, int(mode.mode), mode.retry_after)
        return True
    return False


async def _refuse(connection: Connection, status: int, retry_after: int | None) -> None:
    headers: list[tuple[str, str]] = []
    if 300 <= status < 400:
        headers.append(("location", "https://api.respan.ai/elsewhere/"))
    if status in (429, 503) and retry_after is not None:
        headers.append(("retry-after", str(retry_after)))
    if status == 401:
        body = error_body(INVALID_KEY)
    elif status == 429:
        body = error_body("Rate limit exceeded", **({} if retry_after is None else {"retry_after": retry_after}))
    elif status >= 500:
        body = error_body("Internal server error", error_code="INTERNAL_ERROR")
    else:
        body = error_body(f"The sandbox was asked for {status}")
    await connection.answer(status, body, headers)
