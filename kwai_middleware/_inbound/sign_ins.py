"""Where Starlette and Flask-Login keep the user of a request."""

from __future__ import annotations

import sys
from typing import Any, Final

from starlette.types import Scope

from kwai_middleware._caller import Caller
from kwai_middleware._inbound.request_user import UNKNOWN, RequestUser, SignIn, note_untold
from kwai_middleware._inbound.user_fields import UserFields
from kwai_middleware._slot import Slot
from kwai_middleware._user_source import Unreadable

__all__ = ["FlaskSignIn", "ScopeSignIn"]

_ENVIRON_KEY: Final = "kwai_middleware.caller"


class ScopeSignIn(SignIn):
    """`scope["user"]`, as Starlette's AuthenticationMiddleware sets it, and Channels' for what is inside of it.

    Args:
        scope: Of the request.
    """

    __slots__ = ("_scope", "_user")

    def __init__(self, scope: Scope) -> None:
        self._scope: Scope | None = scope
        self._user: object = UNKNOWN

    @property
    def origin(self) -> str:
        """Where the user comes from."""
        return "user of starlette"

    def caller(self, fields: UserFields) -> Caller | None:
        """Return who the user is; None for nobody."""
        user = self._found()
        if user is UNKNOWN:
            note_untold("starlette")
            return None
        return fields.caller_of(user)

    def keep(self) -> None:
        """Keep the user, and let go of the scope, which holds this."""
        self._user, self._scope = self._found(), None

    def _found(self) -> object:
        return self._user if self._scope is None else self._scope.get("user", UNKNOWN)


class FlaskSignIn(SignIn):
    """Flask-Login's `current_user`, where it is that of this request.

    Flask finds it by a context variable of its own. A thread that works for one request may have another
    one's context pushed; so what is found there counts only when its environ has this request's slot.
    """

    __slots__ = ("_is_flasks", "_user")

    def __init__(self) -> None:
        self._is_flasks = False
        self._user: object = UNKNOWN

    @property
    def origin(self) -> str:
        """Where the user comes from."""
        return "user of flask-login"

    def caller(self, fields: UserFields) -> Caller | None:
        """Return who the user is; None for nobody.

        Raises:
            Unreadable: The request's context is not active here, and nobody has looked while it was.
        """
        if self._is_current():
            # Not the module's own import: an app without Flask-Login needs none.
            self._user = sys.modules["flask_login"].current_user._get_current_object()
        elif not self._is_flasks:
            note_untold("flask")
            return None
        elif self._user is UNKNOWN:
            raise Unreadable(
                "Flask-Login knows the user only in the request's context, which is not active here, and nobody has"
                " asked while it was. Wrap the body's generator in stream_with_context() and a thread's function in"
                " carry_caller(), or ask current_caller() in the view"
            )
        return fields.caller_of(self._user)

    def keep(self) -> None:
        """Keep the user whom Flask-Login has loaded, if it has."""
        if self._is_current():
            self._user = sys.modules["flask"].g.get("_login_user", UNKNOWN)

    def _is_current(self) -> bool:
        flask: Any = sys.modules.get("flask")
        if flask is None or "flask_login" not in sys.modules or not flask.has_request_context():
            return False
        slot = flask.request.environ.get(_ENVIRON_KEY)
        user = slot.unsettled.user if isinstance(slot, Slot) and slot.unsettled is not None else None
        if not isinstance(user, RequestUser) or user.sign_in is not self:
            return False
        self._is_flasks = hasattr(flask.current_app, "login_manager")
        return self._is_flasks
