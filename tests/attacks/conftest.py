"""The servers that are attacked: each is started once, for all files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.attacked import Server, gunicorn, uvicorn


@pytest.fixture(scope="session")
def uvicorn_h11() -> Iterator[Server]:
    """On a port."""
    with uvicorn("--http", "h11", "--loop", "asyncio") as server:
        yield server


@pytest.fixture(scope="session")
def uvicorn_httptools() -> Iterator[Server]:
    """On a port."""
    with uvicorn("--http", "httptools", "--loop", "uvloop") as server:
        yield server


@pytest.fixture(scope="session")
def gunicorn_threads() -> Iterator[Server]:
    """With threads, on a port and a unix socket; believes loopback."""
    with gunicorn("--threads", "4") as server:
        yield server


@pytest.fixture(scope="session")
def gunicorn_sync() -> Iterator[Server]:
    """Without threads, on both; believes loopback and unix sockets, and maps headers as one should not."""
    with gunicorn("--worker-class", "sync", "--header-map", "dangerous", peers="127.0.0.1 unix") as server:
        yield server
