"""A WSGI app that submits a record while it is imported, and one for each request: for servers that fork afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from kwai_middleware._delivery.delivery import default_delivery
from kwai_middleware._record import CompletedCall

delivery = default_delivery()
delivery.submit(CompletedCall(record_id="while importing", model="m", messages=b"[]"))


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Submit a record named by the path and this process."""
    name = f"{environ['PATH_INFO']} {os.getpid()}"
    delivery.submit(CompletedCall(record_id=name, model="m", messages=b"[]"))
    start_response("200 OK", [("content-type", "text/plain")])
    return [name.encode()]
