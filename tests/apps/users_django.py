"""A Django project with its own sign-in, in one file, whose views call models for whoever has signed in."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import path

import kwai_middleware as kwai
from tests.support.model_calls import ModelCalls, who

ATTRIBUTES: dict[str, Any] = {"identifier": "username", "email": "email"}
GROUPS = {**ATTRIBUTES, "group": lambda user: user.groups.values_list("name", flat=True).first()}
"""With one that queries the database each time."""

_folder = tempfile.TemporaryDirectory(prefix="kwai-django-")
settings.configure(
    SECRET_KEY="of-the-session",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    LOGGING_CONFIG=None,
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(Path(_folder.name, "users.sqlite"))}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
    MIDDLEWARE=[
        "kwai_middleware.django.UserMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
    ],
)
django.setup()

from django.contrib import auth  # noqa: E402 - after the set-up, as its models need it
from django.contrib.auth.models import Group, User  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connections  # noqa: E402

models: ModelCalls


def prepare() -> None:
    """Make the tables, and eight users."""
    call_command("migrate", verbosity=0)
    group = Group.objects.create(name="org")
    for number in range(8):
        user = User.objects.create_user(f"user-{number}", f"user-{number}@example.com", "password")
        user.groups.add(group)
    connections.close_all()


def call_at(vendor: kwai.Settings) -> None:
    """Have the views call this vendor."""
    global models
    models = ModelCalls(vendor)


def login(request: HttpRequest) -> JsonResponse:
    """Sign in, and tell who is current before and after."""
    before = who()
    user = auth.authenticate(request, username=request.GET["name"], password="password")
    auth.login(request, user)
    return JsonResponse([before, who(), models.ask(request.GET["q"])], safe=False)


async def login_async(request: HttpRequest) -> JsonResponse:
    """The same with Django's async functions, where the user has been asked for in vain before."""
    before = await models.ask_async(f"{request.GET['q']} before")
    user = await auth.aauthenticate(request, username=request.GET["name"], password="password")
    await auth.alogin(request, user)
    return JsonResponse([before, await models.ask_async(request.GET["q"]), who()], safe=False)


def logout(request: HttpRequest) -> JsonResponse:
    """Sign out."""
    auth.logout(request)
    return JsonResponse(who())


def get_who(request: HttpRequest) -> JsonResponse:
    """Who is current."""
    return JsonResponse(who())


def ask(request: HttpRequest) -> JsonResponse:
    """Call a model."""
    return JsonResponse(models.ask(request.GET["q"]))


def thread(request: HttpRequest) -> JsonResponse:
    """Call a model on a thread."""
    answers = list[Any]()
    worker = threading.Thread(target=kwai.carry_caller(lambda: answers.append(models.ask(request.GET["q"]))))
    worker.start()
    worker.join()
    return JsonResponse(answers, safe=False)


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Call a model in the body."""

    def parts() -> Iterator[str]:
        yield "a"
        yield str(models.ask(request.GET["q"]))

    return StreamingHttpResponse(parts())


async def ask_async(request: HttpRequest) -> JsonResponse:
    """Call a model on the event loop."""
    return JsonResponse(await models.ask_async(request.GET["q"]))


async def on_the_loop(request: HttpRequest) -> JsonResponse:
    """Ask on the event loop in every way, before and after `auser()`."""
    before = [who(), models.ask("too early")]
    await request.auser()
    return JsonResponse([*before, who(), models.ask(request.GET["q"])], safe=False)


async def stream_async(request: HttpRequest) -> StreamingHttpResponse:
    """Call a model in an async body."""
    q = request.GET["q"]

    async def parts() -> AsyncIterator[str]:
        yield "a"
        yield str(await models.ask_async(q))

    return StreamingHttpResponse(parts())


async def together(request: HttpRequest) -> JsonResponse:
    """Call models at once, from tasks and from a thread."""
    q = request.GET["q"]

    def ask_and_close() -> Any:
        try:
            return models.ask(f"{q} 3")
        finally:
            connections.close_all()  # Django does so only on threads of its own

    calls = [models.ask_async(f"{q} 1"), models.ask_async(f"{q} 2"), asyncio.to_thread(ask_and_close)]
    return JsonResponse(await asyncio.gather(*calls), safe=False)


views = (login, login_async, logout, get_who, ask, thread, stream, ask_async, on_the_loop, stream_async, together)
urlpatterns = [path(view.__name__, view) for view in views]


def wsgi(attributes: Any = ATTRIBUTES, **options: Any) -> Any:
    """The project under WSGI."""
    return kwai.WSGIMiddleware(get_wsgi_application(), identify=kwai.UserIdentity(attributes), **options)


def asgi(attributes: Any = ATTRIBUTES, **options: Any) -> Any:
    """The project under ASGI."""
    return kwai.ASGIMiddleware(get_asgi_application(), identify=kwai.UserIdentity(attributes), **options)


def from_env() -> Any:
    """The project under ASGI, whose vendor is in the environment."""
    with ThreadPoolExecutor() as threads:  # uvicorn calls this on its event loop
        threads.submit(prepare).result()
    call_at(kwai.Settings.from_env())
    return asgi()
