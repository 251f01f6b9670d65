"""The server's process, started as one starts it in production."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

__all__ = ["Command", "gunicorn", "serving", "uvicorn"]

Command = Callable[[str, int], Sequence[str]]
"""What runs the app of a variant on a port."""

_START: Final = 60.0
_STOP: Final = 15.0


def uvicorn(variant: str, port: int) -> Sequence[str]:
    """FastAPI under uvicorn, as `uvicorn[standard]` runs it; the address of the peer counts, see the README."""
    app = f"benchmarks.whole_app.fastapi_app:{variant}"
    options = (
        "--loop",
        "uvloop",
        "--http",
        "httptools",
        "--no-proxy-headers",
        "--no-access-log",
        "--log-level",
        "error",
    )
    return ("uvicorn", app, "--factory", "--port", str(port), *options)


def gunicorn(variant: str, port: int) -> Sequence[str]:
    """Flask under gunicorn with threads."""
    app = f"benchmarks.whole_app.flask_app:{variant}()"
    options = ("--worker-class", "gthread", "--workers", "1", "--threads", "8", "--log-level", "error")
    return ("gunicorn", app, "--bind", f"127.0.0.1:{port}", "--no-control-socket", *options)


@contextmanager
def serving(command: Command, variant: str, environment: Mapping[str, str]) -> Iterator[int]:
    """Run a server until the block ends; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", *command(variant, port)], env={**os.environ, **environment}, stdin=subprocess.DEVNULL
    )
    try:
        _wait_for(port, process)
        yield port
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP)
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"the server did not start (exit code {process.poll()})")
