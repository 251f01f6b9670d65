"""What all calls of this process hold, for tests that compare it before and after."""

from __future__ import annotations

import gc

from kwai_middleware._outbound.budget import in_use
from tests.support.shipping import until


def wait_until_all_is_given_back() -> None:
    """Wait until no call holds anything any more, those of earlier tests neither.

    They may be garbage, be recorded just now, or become both: what the garbage collector finds is handed over. And
    while it runs on another thread, to ask for it does nothing.
    """

    def is_given_back() -> bool:
        if in_use():
            gc.collect()
        return not in_use()

    until(is_given_back)
