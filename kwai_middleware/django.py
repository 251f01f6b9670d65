"""The middleware that tells a `UserIdentity` of Django's user."""

from __future__ import annotations

try:
    from django.core.exceptions import SynchronousOnlyOperation
    from django.utils.functional import LazyObject, empty
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError("kwai_middleware.django needs Django: pip install django", name=missing.name) from missing

import weakref
from collections.abc import Callable
from typing import Any, Final, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async

from kwai_middleware._caller import Caller
from kwai_middleware._inbound.request_user import UNKNOWN, RequestUser, SignIn, note_untold
from kwai_middleware._inbound.user_fields import UserFields
from kwai_middleware._slot import Slot
from kwai_middleware._unsettled import running_loop
from kwai_middleware._user_source import Unreadable

__all__ = ["UserMiddleware"]


class UserMiddleware:
    """Hands Django's request over to the `UserIdentity` of the door around it, which reads `request.user` when needed.

    It reads nothing itself, and may stand anywhere in `MIDDLEWARE`. On an event loop the user is read
    with `await request.auser()`, so nothing ever queries the database there.

    Args:
        get_response: The next middleware, or the view; sync or async.

    Example:
        ::

            MIDDLEWARE = ["kwai_middleware.django.UserMiddleware", ...]
            application = kwai.WSGIMiddleware(get_wsgi_application(), identify=kwai.UserIdentity({"identifier": "pk"}))
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[Any], Any]) -> None:
        self._get_response: Final = get_response
        # inspect's own knows the mark from Python 3.12 on.
        if iscoroutinefunction(get_response):  # pyright: ignore[reportDeprecated]
            markcoroutinefunction(self)

    def __call__(self, request: Any) -> Any:
        """Serve one request; what this returns is awaited where `get_response` is async."""
        environ, scope = getattr(request, "environ", {}), getattr(request, "scope", {})
        slot = environ.get("kwai_middleware.caller") or scope.get("kwai_middleware")
        user = slot.unsettled.user if isinstance(slot, Slot) and slot.unsettled is not None else None
        if isinstance(user, RequestUser):
            user.sign_in = _DjangoSignIn(request)
        return self._get_response(request)


class _DjangoSignIn(SignIn):
    """`request.user`, looked for only where Django allows it.

    Args:
        request: Django's.
    """

    __slots__ = ("_request", "_user")

    def __init__(self, request: Any) -> None:
        self._request: Final[weakref.ref[Any]] = weakref.ref(request)  # it holds this
        self._user: object = UNKNOWN

    @property
    def origin(self) -> str:
        """Where the user comes from."""
        return "user of django"

    def caller(self, fields: UserFields) -> Caller | None:
        """Return who the user is; None for nobody.

        Raises:
            Unreadable: Django would have to query the database on an event loop, or the request is over.
        """
        user = self._loaded()
        if user is UNKNOWN:
            if running_loop() is not None:
                raise Unreadable(_ON_THE_LOOP)
            user = getattr(self._alive(), "user", UNKNOWN)
            if user is UNKNOWN:
                note_untold("django")
                return None
        try:
            return fields.caller_of(user)
        except SynchronousOnlyOperation as error:
            raise Unreadable(_ON_THE_LOOP) from error

    async def caller_async(self, fields: UserFields) -> Caller | None:
        """Do the same with `request.auser()`; what queries the database beyond that does so on Django's thread."""
        user = self._loaded()
        if user is UNKNOWN:
            request = self._alive()
            find = getattr(request, "auser", None)
            if find is None or _is_of_others(cast("dict[str, object]", vars(request)).get("user")):
                return await sync_to_async(self.caller)(fields)
            user = await find()
        try:
            return fields.caller_of(user)
        except SynchronousOnlyOperation:
            return await sync_to_async(fields.caller_of)(user)

    def keep(self) -> None:
        """Keep the user, if Django has loaded it."""
        self._user = self._loaded()

    def _alive(self) -> Any:
        request = self._request()
        if request is None:
            raise Unreadable(
                "Django's request is over, and nobody has asked for its user before; ask current_caller() in the view"
            )
        return request

    def _loaded(self) -> object:
        """Return the user without looking for one; `UNKNOWN` when that has not been done."""
        request = self._request()
        if request is None:
            return self._user
        known = cast("dict[str, object]", vars(request))
        user = known.get("user", UNKNOWN)
        # login() and logout() of either kind set `user`, not what auser() remembers.
        if _is_of_others(user):
            return UNKNOWN  # what Django remembers is whoever that one has taken the place of
        if _is_unread(user):
            user = UNKNOWN
        return known.get("_cached_user", known.get("_acached_user", UNKNOWN)) if user is UNKNOWN else user


def _is_unread(user: object) -> bool:
    return isinstance(user, LazyObject) and cast("dict[str, object]", vars(user)).get("_wrapped") is empty


def _is_of_others(user: object) -> bool:
    """Say whether it is still to be found, and not by Django's own middleware: somebody may have replaced the user."""
    find = cast("dict[str, object]", vars(user)).get("_setupfunc") if _is_unread(user) else None
    return find is not None and getattr(find, "__module__", "") != "django.contrib.auth.middleware"


_ON_THE_LOOP: Final = (
    "Django would have to query the database on the event loop for it, which it does not allow. Model calls of async"
    " clients wait for it as request.auser() does; before current_caller() and synchronous clients, say"
    " `await request.auser()`, and let what else of the user is needed be loaded with it"
)
