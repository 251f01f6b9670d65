"""A FastAPI app with Starlette's sign-in by sessions, whose views call models for whoever has signed in."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

from fastapi import BackgroundTasks, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import HTTPConnection

import kwai_middleware as kwai
from tests.support.model_calls import ModelCalls, who

ATTRIBUTES: dict[str, Any] = {"identifier": "account.id", "email": "email", "group": lambda user: user.organisation}


class Account:
    """What a user's `account` is."""

    def __init__(self, number: int) -> None:
        self.id = UUID(int=number)


class User(BaseUser):
    """`user-7` is of the seventh account."""

    def __init__(self, name: str) -> None:
        self.account = Account(int(name.removeprefix("user-")))
        self.email = f"{name}@example.com"
        self.organisation = "org" if self.account.id.int % 2 else None

    @property
    def is_authenticated(self) -> bool:
        """Whoever has a name has signed in."""
        return True


def customer(number: int) -> str:
    """The identifier of a user."""
    return str(UUID(int=number))


class Sessions(AuthenticationBackend):
    """The user is in the session."""

    async def authenticate(self, conn: HTTPConnection) -> Any:
        """Return who it is; None for nobody."""
        name = conn.session.get("user")
        return None if name is None else (AuthCredentials(), User(name))


def build(settings: kwai.Settings, **options: Any) -> FastAPI:
    """The app, behind a door with these options."""
    app, models = FastAPI(), ModelCalls(settings)
    done: dict[str, threading.Event] = {}
    app.state.done = done

    @app.post("/login")
    async def login(request: Request, name: str, q: str = "") -> list[Any]:
        before = [who(), q and await models.ask_async(f"{q} before")]
        request.session["user"] = name
        request.scope["user"] = User(name)
        return [*before, who(), q and await models.ask_async(f"{q} after")]

    @app.post("/logout")
    async def logout(request: Request) -> dict[str, Any]:
        request.session.clear()
        return who()

    @app.get("/who")
    async def get_who() -> dict[str, Any]:
        return who()

    @app.get("/ask")
    async def ask(q: str) -> dict[str, Any]:
        return await models.ask_async(q)

    @app.get("/ask-in-thread")
    def ask_in_thread(q: str) -> dict[str, Any]:
        return models.ask(q)

    @app.get("/stream")
    async def stream(q: str) -> StreamingResponse:
        async def parts() -> AsyncIterator[str]:
            yield "a"
            yield str(await models.ask_async(q))

        return StreamingResponse(parts())

    @app.get("/stream-in-thread")
    def stream_in_thread(q: str) -> StreamingResponse:
        def parts() -> Iterator[str]:
            yield "a"
            yield str(models.ask(q))

        return StreamingResponse(parts())

    @app.get("/background")
    async def background(q: str, background: BackgroundTasks) -> None:
        background.add_task(models.ask_async, q)

    @app.get("/later")
    async def later(q: str) -> None:
        """Begin what goes on when the request is long over."""
        done[q] = threading.Event()

        def work() -> None:
            done[q].wait(60)
            models.ask(q)

        threading.Thread(target=kwai.carry_caller(work)).start()

    @app.websocket("/ws")
    async def websocket(socket: WebSocket) -> None:
        await socket.accept()
        async for q in socket.iter_text():
            await models.ask_async(q)
            await socket.send_json(who())

    app.add_middleware(AuthenticationMiddleware, backend=Sessions())
    app.add_middleware(SessionMiddleware, secret_key="of-the-session")
    app.add_middleware(kwai.ASGIMiddleware, **{"identify": kwai.UserIdentity(ATTRIBUTES), **options})
    return app


def from_env() -> FastAPI:
    """The app whose vendor is in the environment."""
    return build(kwai.Settings.from_env())
