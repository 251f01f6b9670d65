"""A Flask app with Flask-Login, whose views call models for whoever has signed in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import flask_login
from flask import Flask, Response, request, session, stream_with_context

import kwai_middleware as kwai
from tests.support.model_calls import ModelCalls, who

ATTRIBUTES: dict[str, Any] = {"identifier": "get_id", "email": "email", "group": "organisation.id"}


class User(flask_login.UserMixin):
    """`user-7`."""

    organisation = None

    def __init__(self, name: str) -> None:
        self.id = name
        self.email = f"{name}@example.com"


def build(settings: kwai.Settings, **options: Any) -> Flask:
    """The app, behind a door with these options."""
    app, models = Flask(__name__), ModelCalls(settings)
    app.secret_key = "of-the-session"
    manager = flask_login.LoginManager(app)
    loaded: list[Any] = []
    app.extensions["loaded"] = loaded

    @manager.user_loader
    def load(name: str) -> User:
        loaded.append(kwai.current_caller())
        return User(name)

    @app.post("/login")
    def login() -> Any:
        before = [who(), models.ask(f"{request.args['q']} before")] if "q" in request.args else []
        flask_login.login_user(User(request.args["name"]))
        return [*before, who(), models.ask(f"{request.args['q']} after")] if "q" in request.args else []

    @app.post("/logout")
    def logout() -> Any:
        before = who()
        flask_login.logout_user()
        return [before, who()]

    @app.get("/who")
    def get_who() -> Any:
        return who()

    @app.get("/unasked")
    def unasked() -> str:
        return "nobody asks"

    @app.get("/session")
    def get_session() -> Any:
        return dict(session)

    @app.get("/ask")
    def ask() -> Any:
        return models.ask(request.args["q"])

    @app.get("/ask-async")
    async def ask_async() -> Any:
        return await models.ask_async(request.args["q"])

    @app.get("/thread")
    def thread() -> Any:
        q, answers = request.args["q"], list[Any]()
        worker = threading.Thread(target=kwai.carry_caller(lambda: answers.append(models.ask(q))))
        worker.start()
        worker.join()
        return answers

    @app.get("/thread-of-another")
    def thread_of_another() -> Any:
        """Work on a thread on which another request is active, whose user has signed in."""
        q, answers = request.args["q"], list[Any]()

        def work() -> None:
            with app.test_request_context(headers={"cookie": request_cookie}):
                another = flask_login.current_user.get_id()
                answers.append([another, who(), models.ask(q)])

        request_cookie = request.args["cookie"]
        worker = threading.Thread(target=kwai.carry_caller(work) if "carry" in request.args else work)
        worker.start()
        worker.join()
        return answers

    @app.get("/stream")
    def stream() -> Response:
        q = request.args["q"]

        def parts() -> Iterator[str]:
            yield "a"
            yield str(models.ask(q))

        how = request.args["how"]
        if how == "asked":
            kwai.current_caller()
        elif how == "loaded":
            flask_login.current_user.get_id()
        return Response(stream_with_context(parts()) if how == "context" else parts())

    app.wsgi_app = kwai.WSGIMiddleware(  # type: ignore[method-assign]  # Flask's own way
        app.wsgi_app, **{"identify": kwai.UserIdentity(ATTRIBUTES), **options}
    )
    return app


def from_env() -> Flask:
    """The app whose vendor is in the environment."""
    return build(kwai.Settings.from_env())
