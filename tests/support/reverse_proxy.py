"""A reverse proxy that does with headers what nginx does, and nginx itself where there is one."""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.processes import free_port, running

_SET_HEADER = re.compile(r'^\s*proxy_set_header\s+(\S+)\s+"?(.*?)"?;', re.MULTILINE)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


@contextlib.contextmanager
def nginx(configuration: str, variables: Mapping[str, str], upstream: int | str) -> Iterator[str]:
    """Run a proxy in front of `upstream` (a port, or a unix socket's path); gives its URL.

    A `proxy_set_header` replaces what the client sent, and one with an empty value removes it, as in nginx.

    Args:
        configuration: Of which only the `proxy_set_header` lines count.
        variables: What the variables in them are, such as `$customer`.
        upstream: Where requests go.
    """
    headers = {name.lower(): variables.get(value, value) for name, value in _SET_HEADER.findall(configuration)}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # Nothing there yet: hang up, as a server does that is not there.
            with contextlib.suppress(ConnectionError, FileNotFoundError):
                self.pass_on()

        do_POST = do_GET

        def pass_on(self) -> None:
            kept = {name: value for name, value in self.headers.items() if name.lower() not in headers}
            kept |= {name: value for name, value in headers.items() if value} | {"connection": "close"}
            body = self.rfile.read(int(self.headers["content-length"] or 0))
            unix = isinstance(upstream, str)
            connection = _UnixConnection(upstream) if unix else http.client.HTTPConnection("127.0.0.1", upstream)
            with contextlib.closing(connection):
                connection.request(self.command, self.path, body, kept)
                answer = connection.getresponse()
                content = answer.read()
            self.send_response(answer.status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def real_nginx(configuration: str, upstream: int, *, customer: str) -> Iterator[list[str]]:
    """Run this machine's nginx with the `location` blocks of a document; gives its URL, or none without one.

    Args:
        configuration: With an app at port 8000, and a service at port 9000 that says who a client is.
        upstream: Where the app listens.
        customer: Whom that service finds.
    """
    program = shutil.which("nginx")
    if program is None:
        yield []
        return

    class Auth(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(204)
            self.send_header("X-Customer", customer)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            pass

    port = free_port()
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadingHTTPServer(("127.0.0.1", 0), Auth) as auth,
    ):
        locations = configuration.replace(":8000", f":{upstream}").replace(":9000", f":{auth.server_port}")
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
        Path(folder, "nginx.conf").write_text(
            f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n"
            f"http {{\naccess_log off;\n{paths}server {{\nlisten 127.0.0.1:{port};\n{locations}\n}}\n}}\n"
        )
        argv = ["-c", "import os, sys; os.execv(sys.argv[1], sys.argv[1:])", program]
        argv += ["-e", "stderr", "-p", folder, "-c", f"{folder}/nginx.conf"]
        thread = threading.Thread(target=auth.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with running(argv, ready=f"http://127.0.0.1:{port}/"):
                yield [f"http://127.0.0.1:{port}"]
        finally:
            auth.shutdown()
            thread.join()
