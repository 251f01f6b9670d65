"""Who a request is for, as the framework's own sign-in says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, final

from kwai_middleware._inbound.callables import LazyIdentity
from kwai_middleware._inbound.request import InboundRequest
from kwai_middleware._inbound.request_user import RequestUser
from kwai_middleware._inbound.sign_ins import FlaskSignIn, ScopeSignIn
from kwai_middleware._inbound.user_fields import UserFields
from kwai_middleware._user_source import UserSource

__all__ = ["UserIdentity"]


@final
class UserIdentity(LazyIdentity):
    """Takes the user who has signed in as the caller: Starlette's `scope["user"]`, Flask-Login's, Django's.

    Frameworks find the user after the middleware has run. So it is read when it is needed, by
    `current_caller()` or the first model call, and each time anew until somebody has signed in; that user
    is the caller of the request from then on, also after a logout. Anonymous users are nobody.

    When the user cannot be read, model calls are refused with `CannotAttribute`, and `current_caller()`
    is None, with one warning.

    In Django, `kwai_middleware.django.UserMiddleware` in `MIDDLEWARE` is needed too.

    Args:
        attributes: For each field of the `Caller`, what of the user it is: an attribute, a dotted path of
            them, or a function that takes the user. `identifier` is needed; `name`, `email`, `group` and
            `thread` may be. A method is called. None and "" leave a field out, and without an identifier it
            is nobody.

    Raises:
        ConfigurationError: `attributes` is something else.

    Example:
        >>> UserIdentity({"identifier": "pk", "email": "email", "group": "organisation.id"})
        UserIdentity({'identifier': 'pk', 'email': 'email', 'group': 'organisation.id'})
    """

    __slots__ = ("_fields",)

    origin: Final = "framework's user"

    def __init__(self, attributes: Mapping[str, str | Callable[[Any], Any]]) -> None:
        self._fields: Final = UserFields(attributes)

    def user_of(self, request: InboundRequest) -> UserSource:
        """Return what tells the request's user later."""
        scope = request.scope
        return RequestUser(self._fields, FlaskSignIn() if scope is None else ScopeSignIn(scope))

    def __repr__(self) -> str:
        return f"UserIdentity({self._fields!r})"
