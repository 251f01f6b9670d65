"""Under gevent's monkey patches: many greenlets call through a transport while native threads record and deliver."""

from __future__ import annotations

import subprocess
import sys

from tests.support.processes import PROJECT

PROGRAM = """
from gevent import monkey; monkey.patch_all()
import gevent, httpx
import kwai_middleware as kwai
from kwai_middleware import httpx_transport

settings = kwai.Settings()  # no API key: records are made, logged as events and dropped, all on the recording thread
delivery = kwai.default_delivery(settings)
answer = {"model": "m", "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "hi"}}]}

def respond(request):
    gevent.sleep(0)
    return httpx.Response(200, json=answer)

client = httpx.Client(transport=httpx_transport.KwaiTransport(httpx.MockTransport(respond), settings=settings))
wrong = []

def customer(number):
    caller = kwai.Caller(identifier=f"c{number}", credentials=(kwai.Credential(api_key=kwai.Secret(f"key-{number}")),))
    with kwai.bind_caller(caller):
        for _ in range(60):
            client.post("https://openrouter.ai/api/v1/chat/completions", json={"model": "m", "messages": []})
            if kwai.current_caller() is not caller:
                wrong.append(number)

gevent.joinall([gevent.spawn(customer, number) for number in range(50)], raise_error=True)
flushed = delivery.flush(30)
stats = delivery.stats()
print(flushed, wrong, stats.accepted, stats.in_memory, stats.dropped_by_reason, stats.restarts, stats.swallowed)
"""


def test_calls_of_many_greenlets_are_all_recorded() -> None:
    """The memory budget is shared by greenlets and the native recording thread; nothing blocks, nothing is lost."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False
    )
    expected = "True [] 3000 0 {'not configured': 3000} {'recording': 0, 'shipping': 0} {}\n"
    assert (expected, 0) == (done.stdout, done.returncode), done.stderr


CONTENTION = """
from gevent import monkey; monkey.patch_all()
import gevent
from _queue import SimpleQueue
from kwai_middleware import _native
from kwai_middleware._outbound.budget import Reservation, in_use

ended = SimpleQueue()

def many(times, pause):
    for number in range(times):
        reservation = Reservation(1 << 40)
        reservation.grow(1)
        reservation.release()
        if not number % 50:
            pause()

def native():
    many(300_000, lambda: None)
    ended.put("native")

_native.start_thread(native, "native")
gevent.joinall([gevent.spawn(many, 5_000, lambda: gevent.sleep(0)) for _ in range(50)], raise_error=True)
print(ended.get(timeout=60), in_use())
"""


def test_the_budget_is_shared_by_greenlets_and_native_threads() -> None:
    """A lock of gevent's would leave one side waiting for ever, or the budget wrong."""
    done = subprocess.run(
        [sys.executable, "-c", CONTENTION], cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False
    )
    assert ("native 0\n", 0) == (done.stdout, done.returncode), done.stderr
