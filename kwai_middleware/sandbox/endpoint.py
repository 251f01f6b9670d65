"""What all endpoints of the models' side share, and the answer to every path that is none of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container

from starlette.types import Receive, Scope, Send

from kwai_middleware.sandbox import gateway
from kwai_middleware.sandbox.connection import ClientLeft, Connection
from kwai_middleware.sandbox.entries import CallEntry
from kwai_middleware.sandbox.keys import header_keys
from kwai_middleware.sandbox.state import SandboxState

__all__ = ["Endpoint", "Unknown"]


class Endpoint(ABC):
    """An ASGI app for one endpoint: everything that arrives is in the journal, whatever becomes of it."""

    route: str

    def __init__(self, state: SandboxState) -> None:
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Receive the request whole, and answer it."""
        state = self.state
        connection = Connection(scope, receive, send, pauses=state.pauses, reset=state.reset_connection)
        try:
            body = await connection.body()
        except ClientLeft:
            return
        entry = CallEntry(
            route=self.route,
            method=scope["method"],
            path=connection.path,
            headers=scope["headers"],
            raw_body=body,
        )

        for key in header_keys(entry.headers):
            state.keys.remember(key)

        def started(status: int) -> None:
            entry.status = status
            state.calls.wake()

        connection.on_start = started
        try:
            await self.handle(connection, entry)
            entry.outcome = entry.outcome or "sent"
        except ClientLeft:
            entry.outcome = "client left"
            await connection.cut()
        finally:
            connection.close()
            state.calls.wake()

    @abstractmethod
    async def handle(self, connection: Connection, entry: CallEntry) -> None:
        """Answer the request; puts `entry` into the journal as soon as it says who pays."""


class Unknown(Endpoint):
    """Every request to no endpoint of ours: 404 or 405, and an entry that shows what arrived.

    Args:
        state: Where the entry goes.
        paths: Of the endpoints, which take one method only.
    """

    route = "unknown"

    def __init__(self, state: SandboxState, paths: Container[str]) -> None:
        super().__init__(state)
        self.paths = paths

    async def handle(self, connection: Connection, entry: CallEntry) -> None:
        """Answer 404, or 405 on the path of an endpoint."""
        self.state.calls.append(entry)
        if connection.scope["path"] in self.paths:
            await connection.answer(405, gateway.error_body(f'Method "{entry.method}" not allowed.'))
        else:
            await connection.answer(404, gateway.error_body("Not found."))
