"""The server's command line and environment: what they say of addresses, processes and event loops. Runs nothing."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["KNOWN", "Server", "server_of"]

KNOWN: Final = ("uvicorn", "gunicorn", "hypercorn", "uwsgi")

_TRUE: Final = ("1", "true", "t", "yes", "y", "on")
_LOCAL: Final = "127.0.0.1"
_DEFAULT_TRUSTED: Final = "127.0.0.1,::1"


@dataclass(frozen=True, slots=True)
class Server:
    """How an app is served.

    Attributes:
        name: One of `KNOWN`; else what the command begins with.
        words: What stands behind that.
        environ: The environment.
    """

    name: str
    words: tuple[str, ...]
    environ: Mapping[str, str]

    def value(self, *options: str) -> str | None:
        """Return the last value given to an option, by any of its names."""
        found = None
        for index, word in enumerate(self.words):
            name, equals, value = word.partition("=")
            short = next((each for each in options if not each.startswith("--") and word.startswith(each)), None)
            if name in options and equals:
                found = value
            elif word in options:
                found = self.words[index + 1] if index + 1 < len(self.words) else ""
            elif short is not None and not word.startswith("--"):
                found = word.removeprefix(short)
        return self._variable(options[0]) if found is None else found

    def values(self, *options: str) -> list[str]:
        """Return all values given to an option."""
        pairs = zip(self.words, (*self.words[1:], ""), strict=True)
        found: list[str] = []
        for word, following in pairs:
            name, equals, value = word.partition("=")
            if name in options:
                found.append(value if equals else following)
        return found

    def is_given(self, option: str) -> bool:
        """Whether a flag is there."""
        return option in self.words or (self._variable(option) or "").lower() in _TRUE

    @property
    def worker(self) -> str:
        """Gunicorn's kind of worker."""
        return (self.value("--worker-class", "-k") or "sync") if self.name == "gunicorn" else ""

    @property
    def is_uvicorn(self) -> bool:
        """Whether uvicorn answers the requests."""
        return self.name == "uvicorn" or "uvicorn" in self.worker.lower()

    @property
    def trusted(self) -> str | None:
        """From whom the server takes X-Forwarded-For for the client's address; None when it never does."""
        if not self.is_uvicorn:
            return None
        if self.name == "uvicorn" and "--no-proxy-headers" in self.words:
            return None
        if self.name == "uvicorn" and (self._variable("--proxy-headers") or "true").lower() not in _TRUE:
            return None
        given = self.value("--forwarded-allow-ips")
        return self.environ.get("FORWARDED_ALLOW_IPS", _DEFAULT_TRUSTED) if given is None else given

    @property
    def hosts(self) -> list[str]:
        """The addresses that it listens on; `unix` for a socket."""
        if self.name == "uvicorn":
            is_unix = self.value("--uds") is not None
            return ["unix" if is_unix else self.value("--host") or _LOCAL]
        if self.name == "uwsgi":
            places = self.values("--http", "--http-socket", "--socket", "-s")
            return [_host(place) if ":" in place else "unix" for place in places]
        places = self.values("--bind", "-b")
        if not places and self.name == "gunicorn" and "PORT" in self.environ:
            places = ["0.0.0.0"]  # noqa: S104 - gunicorn's own default then, not an address to listen on
        return [_host(place) for place in places or [_LOCAL]]

    @property
    def is_open(self) -> bool:
        """Whether it listens on all addresses of this machine."""
        return any(host in ("0.0.0.0", "::", "") for host in self.hosts)  # noqa: S104 - compared only

    @property
    def workers(self) -> int:
        """How many processes serve."""
        options = ("--processes", "-p") if self.name == "uwsgi" else ("--workers", "-w")
        given = self.value(*options) or self.environ.get("WEB_CONCURRENCY", "")
        return int(given) if re.fullmatch(r"[0-9]{1,4}", given) else 1

    @property
    def loop(self) -> str:
        """The event loop, where uvicorn chooses one."""
        if self.worker.endswith("H11Worker"):
            return "asyncio"
        loop = (self.value("--loop") if self.name == "uvicorn" else None) or "auto"
        return ("uvloop" if importlib.util.find_spec("uvloop") else "asyncio") if loop == "auto" else loop

    def _variable(self, option: str) -> str | None:
        """Return what uvicorn reads from the environment in place of an option."""
        if self.name != "uvicorn":
            return None
        return self.environ.get(f"UVICORN_{option.lstrip('-').replace('-', '_').upper()}") or None


def server_of(command: Sequence[str], environ: Mapping[str, str]) -> Server | None:
    """Read a command such as `python -m uvicorn app:app --port 8000`; None when there is none."""
    if not command:
        return None
    names = [os.path.basename(word) for word in command]
    index = next((index for index, name in enumerate(names) if name in KNOWN), None)
    if index is None:
        return Server(names[0], tuple(command[1:]), environ)
    words = list(command[index + 1 :])
    if names[index] == "gunicorn":
        # The command line has the last word.
        words = shlex.split(environ.get("GUNICORN_CMD_ARGS", "")) + words
    return Server(names[index], tuple(words), environ)


def _host(place: str) -> str:
    """Return the host of `host:port`, `[::]:port`, `:port` or `unix:path`."""
    place = place.rpartition("://")[2]
    if place.startswith(("unix:", "fd:")):
        return "unix"
    if place.startswith("["):
        return place[1:].partition("]")[0]
    return place.rpartition(":")[0] if ":" in place else place
