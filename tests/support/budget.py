"""What all calls of this process hold, for tests that compare it before and after."""

from __future__ import annotations

import gc

from kwai_middleware import _open_calls
from kwai_middleware._outbound.budget import in_use
from tests.support.shipping import until


def begin_with_nothing_held() -> None:
    """See to it that no call of an earlier test holds anything, or gives it back in the middle of this one."""
    _open_calls.end_all()
    wait_until_all_is_given_back()


def wait_until_all_is_given_back() -> None:
    """Wait until no call holds anything any more.

    One may be garbage, or be recorded just now. And while the garbage collector runs on another thread, to ask for it
    does nothing.
    """

    def is_given_back() -> bool:
        if in_use():
            gc.collect()
        return not in_use()

    until(is_given_back)
