"""The command line, started as a user starts it."""

from __future__ import annotations

import contextlib
import io
import os
import queue
import re
import signal
import socket
import sys
import threading

import httpx
import pytest

import kwai_middleware.sandbox as sandbox_package
from kwai_middleware.__main__ import main
from kwai_middleware.sandbox import Sandbox
from tests.support.processes import DEADLINE, free_port, running

CURL = re.compile(
    r"^curl (?P<url>\S+) -H '(?P<name>[^:]+): (?P<value>[^']+)'.*?-d '(?P<body>.+?)'$", re.MULTILINE | re.DOTALL
)


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_the_sandbox_runs_until_told_to_end(sig: int) -> None:
    """It prints what to try, answers the printed curl line, and ends with 0 on a signal, also while a client hangs."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with running(["-m", "kwai_middleware", "sandbox", "--port", str(port)], ready=f"{url}/sandbox/") as process:
        curl = CURL.search(process.output)
        assert curl is not None
        with httpx.Client(trust_env=False, timeout=DEADLINE) as client:
            answer = client.post(curl["url"], content=curl["body"], headers={curl["name"]: curl["value"]})
            with client.stream(
                "POST",
                curl["url"],
                content=curl["body"].replace("sandbox/echo", "sandbox/stall"),
                headers={curl["name"]: curl["value"]},
            ):
                code = process.stop(sig)
        output = process.output
    assert answer.json()["choices"][0]["message"]["content"] == "Hello"
    assert code == 0
    assert [] == [line for line in (f"{url}/api/", f"{url}/api/v1", f"{url}/sandbox/calls") if line not in output]
    assert "Traceback" not in output


def test_the_handle_works_on_another_process() -> None:
    """`Sandbox(url)` looks into a sandbox that runs elsewhere."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with running(["-m", "kwai_middleware", "sandbox", "--port", str(port)], ready=f"{url}/sandbox/"):
        vendor = Sandbox(url + "/")
        httpx.post(f"{vendor.openrouter_url}/chat/completions", trust_env=False)
        assert [401] == [call["status"] for call in vendor.calls(wait=1, status=401)]


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m kwai_middleware` prints its commands and ends with 0."""
    assert main([]) == 0
    assert "sandbox" in capsys.readouterr().out


@pytest.mark.parametrize("port", ["-1", "65536", "http", "²", "1234567"])
def test_a_wrong_port_is_explained(capsys: pytest.CaptureFixture[str], port: str) -> None:
    """A port that is none ends with 2 and says what is allowed."""
    with pytest.raises(SystemExit) as ended:
        main(["sandbox", f"--port={port}"])
    assert ended.value.code == 2
    assert "a number from 0 to 65535" in capsys.readouterr().err


def test_a_taken_port_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """A port on which something listens ends with 2 and says what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["sandbox", "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in capsys.readouterr().err


def test_an_unknown_host_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """A host that is no address of this machine ends with 2."""
    assert main(["sandbox", "--host", "192.0.2.1"]) == 2
    assert "cannot listen on 192.0.2.1 port 8700" in capsys.readouterr().err


def test_without_uvicorn_the_command_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where uvicorn is not installed the command ends with 2 and says what installs it."""
    monkeypatch.delattr(sandbox_package, "server", raising=False)
    monkeypatch.delitem(sys.modules, "kwai_middleware.sandbox.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["sandbox"]) == 2
    assert "pip install 'kwai-middleware[sandbox]'" in capsys.readouterr().err


class Told(io.StringIO):
    """Standard output whose first URL can be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: queue.SimpleQueue[str] = queue.SimpleQueue()

    def write(self, text: str) -> int:
        """Keep the text, and hand out its first URL."""
        if found := re.search(r"http://\S+?(?=/api/)", text):
            self.urls.put(found[0])
        return super().write(text)


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("::1", False), ("0.0.0.0", True)])
def test_serving_in_this_process(capsys: pytest.CaptureFixture[str], host: str, warned: bool) -> None:
    """Only a host beyond loopback is warned of; the signal handlers of before are back at the end."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    told = Told()
    answered: list[int] = []

    def end_it_when_it_answers() -> None:
        url = told.urls.get(timeout=DEADLINE).replace("0.0.0.0", "127.0.0.1")
        answered.append(httpx.get(f"{url}/sandbox/", trust_env=False, timeout=DEADLINE).status_code)
        os.kill(os.getpid(), signal.SIGTERM)

    ender = threading.Thread(target=end_it_when_it_answers)
    ender.start()
    with contextlib.redirect_stdout(told):
        assert main(["sandbox", "--host", host, "--port", "0"]) == 0
    ender.join(DEADLINE)
    assert [200] == answered
    assert warned == ("is not loopback" in capsys.readouterr().err)
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
