"""The user of one request: where its framework keeps it, and who that is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

from kwai_middleware import _notices
from kwai_middleware._caller import Caller
from kwai_middleware._inbound.user_fields import UserFields
from kwai_middleware._user_source import UserSource

__all__ = ["UNKNOWN", "RequestUser", "SignIn", "note_untold"]

UNKNOWN: Final[object] = object()
"""Stands for a user whom the framework has not looked for."""


class SignIn(ABC):
    """One request, as far as its framework tells who has signed in.

    It holds the request only while that is served: the request holds it.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def origin(self) -> str:
        """Where the user comes from, in a few words."""

    @abstractmethod
    def caller(self, fields: UserFields) -> Caller | None:
        """Return who the user is; None for nobody.

        Raises:
            Unreadable: That cannot be told from here.
            Exception: Whatever the app's own code raises.
        """

    async def caller_async(self, fields: UserFields) -> Caller | None:
        """Do the same on an event loop."""
        return self.caller(fields)

    @abstractmethod
    def keep(self) -> None:
        """Keep the user whom the framework has found, before it forgets; looks for nobody, and runs no app's code."""


class RequestUser(UserSource):
    """Reads one request's user.

    Args:
        fields: What of the user becomes the caller.
        sign_in: Where the user is found.

    Attributes:
        sign_in: The same, until a framework hands over a better one.
    """

    __slots__ = ("_fields", "sign_in")

    def __init__(self, fields: UserFields, sign_in: SignIn) -> None:
        self._fields: Final = fields
        self.sign_in = sign_in

    @property
    def origin(self) -> str:
        """Where the user comes from, in a few words."""
        return self.sign_in.origin

    def read(self) -> Caller | None:
        """Return who the user is; None while nobody has signed in."""
        return self.sign_in.caller(self._fields)

    async def read_async(self) -> Caller | None:
        """Do the same on an event loop."""
        return await self.sign_in.caller_async(self._fields)

    def keep(self) -> None:
        """Keep the user before the framework forgets."""
        self.sign_in.keep()


def note_untold(framework: str) -> None:
    """Warn that nothing has told who the user is, not even that there is none."""
    _notices.count("user_untold")
    _notices.warn_once(
        "user_untold",
        framework,
        "the user of a request was asked for, and no framework has told of one, so it is taken as nobody's. A"
        " UserIdentity needs Starlette's AuthenticationMiddleware, Flask-Login, or in Django"
        " kwai_middleware.django.UserMiddleware; and what asks has to run inside of them",
    )
