"""Real servers that believe every proxy, as they are attacked."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.processes import UNMEASURED, Process, free_port, running
from tests.support.reverse_proxy import nginx


class Server(NamedTuple):
    """Where a server listens: a port of this machine, or the path of a unix socket."""

    address: int | str
    process: Process
    more: str = ""

    @property
    def output(self) -> list[str]:
        """The lines that it has printed."""
        return self.process.output.splitlines()


@contextlib.contextmanager
def uvicorn(*options: str, unix: bool = False, door: str = "plain") -> Iterator[Server]:
    """A uvicorn that believes every proxy."""
    argv = ["-m", "uvicorn", "tests.apps.who_asgi:app", "--forwarded-allow-ips", "*", *options]
    environ = {"KWAI_TEST_DOOR": f"tests.apps.who_asgi:{door}", **UNMEASURED}
    with contextlib.ExitStack() as stack:
        if unix:
            path = str(Path(stack.enter_context(tempfile.TemporaryDirectory()), "app.sock"))
            url, listening = stack.enter_context(nginx("", {}, path)), ["--uds", path]
        else:
            port = free_port()
            url, listening = f"http://127.0.0.1:{port}", ["--port", str(port)]
        process = stack.enter_context(running([*argv, *listening], ready=f"{url}/docs", env=environ))
        yield Server(path if unix else port, process)


@contextlib.contextmanager
def gunicorn(*options: str, peers: str = "127.0.0.1 ::1 testclient") -> Iterator[Server]:
    """A gunicorn that believes every proxy, on a port and on a unix socket."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "app.sock"))
        argv = ["-m", "gunicorn", "tests.apps.who_wsgi:app", "--forwarded-allow-ips", "*", "--keep-alive", "60"]
        argv += ["--bind", f"127.0.0.1:{port}", "--bind", f"unix:{path}", *options]
        environ = {"KWAI_TEST_PEERS": peers, **UNMEASURED}
        with running(argv, ready=f"http://127.0.0.1:{port}/who", env=environ) as process:
            yield Server(port, process, path)
