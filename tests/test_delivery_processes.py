"""Delivery over the life of real processes: exit, signals, forks, servers, gevent, and no thread to be had."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.support.logs_api import LogsAPI, answer, logs_api, taken
from tests.support.processes import DEADLINE, PROJECT, UNMEASURED, free_port, running
from tests.support.raw_server import Connection, raw_server

BEGINNING = """
import atexit, os, signal, sys, threading, time
from kwai_middleware._delivery.delivery import Delivery, default_delivery
from kwai_middleware._record import CompletedCall

def call(name):
    return CompletedCall(record_id=name, model="m", messages=b"[]")
"""


NO_FORK_WARNING = ["-W", "ignore:This process:DeprecationWarning"]
"""Python 3.12 and later warn of what these tests are about: a fork in a process with threads."""


@pytest.fixture
def api() -> Iterator[LogsAPI]:
    """A logs API that takes everything, until the test says otherwise."""
    with logs_api() as running_api:
        yield running_api


def run(api: LogsAPI, program: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program for which `api` is the vendor, to its end."""
    return subprocess.run(
        [sys.executable, "-X", "dev", *NO_FORK_WARNING, *options, "-c", BEGINNING + program],
        env={**os.environ, **api.environment(**environment)},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def clean(done: subprocess.CompletedProcess[str]) -> bool:
    """Say whether it ended well and complained of nothing, not of an open socket either."""
    assert ("", 0) == (done.stderr, done.returncode)
    return True


# The end of a process


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise SystemExit('bye')", 1),
        ("1 / 0", 1),
        ("os.kill(os.getpid(), signal.SIGINT)", -2),
    ],
)
def test_what_is_left_is_delivered_when_the_process_ends(api: LogsAPI, ending: str, code: int) -> None:
    """A script that ends right after its last call, in whichever way, has every record delivered."""
    done = run(api, f"for number in range(20): default_delivery().submit(call(str(number)))\n{ending}")
    assert code == done.returncode
    assert sorted(map(str, range(20))) == sorted(api.arrived)
    assert "kwai_middleware" not in done.stderr
    assert "ResourceWarning" not in done.stderr


def test_sigterm_of_a_program_that_handles_it_loses_nothing(api: LogsAPI) -> None:
    """A handler that ends the program, as servers have one, leads to the same delivery."""
    program = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
for number in range(20):
    default_delivery().submit(call(str(number)))
os.kill(os.getpid(), signal.SIGTERM)
"""
    assert clean(run(api, program))
    assert sorted(map(str, range(20))) == sorted(api.arrived)


def test_a_vendor_that_hangs_delays_the_end_by_three_seconds_at_most(api: LogsAPI) -> None:
    """A vendor that accepts and never answers: the process ends all the same, and tells once what is lost."""
    api.answer = lambda entry, times: None
    program = """
for number in range(5): default_delivery().submit(call(str(number)))
while default_delivery().stats().spooled < 5: time.sleep(0.01)
atexit.register(lambda: print(time.time()))
"""
    done = run(api, program, KWAI_SPOOL="memory:")
    ended = time.time()
    assert 0 == done.returncode
    assert 1 == done.stderr.count("5 records and 0 calls not yet recorded are lost")
    # Three seconds, and what two busy cores take to end an interpreter.
    assert ended - float(done.stdout) < 3.0 + 3.0


def test_what_is_left_waits_on_disk_when_the_vendor_hangs_at_the_end(api: LogsAPI) -> None:
    """The end takes three seconds here too, but nothing is lost: the next process delivers it at once."""
    api.answer = lambda entry, times: None
    first = """
for number in range(5): default_delivery().submit(call(str(number)))
while default_delivery().stats().spooled < 5: time.sleep(0.01)
atexit.register(lambda: print(time.time()))
"""
    done = run(api, first)
    ended = time.time()
    assert clean(done)
    assert ended - float(done.stdout) < 3.0 + 3.0
    api.answer = taken
    second = """
default_delivery().submit(call("next"))
while default_delivery().stats().delivered < 6: time.sleep(0.01)
"""
    assert clean(run(api, second))
    assert {"0", "1", "2", "3", "4", "next"} == set(api.arrived)


def test_many_deliveries_share_the_time_to_end(api: LogsAPI) -> None:
    """Eight deliveries to a vendor that hangs take as long as one."""
    api.answer = lambda entry, times: None
    program = """
from kwai_middleware._settings import Settings
all_of_them = [Delivery(Settings.from_env()) for _ in range(8)]
for delivery in all_of_them: delivery.submit(call("x"))
for delivery in all_of_them:
    while not delivery.stats().spooled: time.sleep(0.01)
atexit.register(lambda: print(time.time()))
"""
    done = run(api, program, KWAI_EXIT_TIMEOUT="1", KWAI_SPOOL="memory:")
    ended = time.time()
    assert 8 == done.stderr.count("1 records and 0 calls not yet recorded are lost")
    assert ended - float(done.stdout) < 1.0 + 3.0


def test_a_wrong_api_key_does_not_delay_the_end(api: LogsAPI) -> None:
    """Where waiting cannot help, nobody waits: the end comes long before its deadline."""
    api.answer = lambda entry, times: answer(401)
    done = run(api, "default_delivery().submit(call('x'))", KWAI_EXIT_TIMEOUT="60", KWAI_SPOOL="memory:")
    assert 0 == done.returncode
    assert "1 records and 0 calls not yet recorded are lost. Last error: HTTP 401" in done.stderr


def test_the_last_words_of_an_app_are_delivered_too(api: LogsAPI) -> None:
    """A call that ends in an atexit handler of the app is delivered; after our own end it is refused without harm."""
    program = """
def last_words(name):
    delivery.submit(call(name))
    print(delivery.stats().dropped_by_reason)
delivery = Delivery()
atexit.register(last_words, "too late")
delivery.submit(call("first"))
atexit.register(last_words, "in time")
"""
    done = run(api, program)
    assert clean(done)
    assert {"first", "in time"} == set(api.arrived)
    assert "{}\n{'closed': 1}\n" == done.stdout


def test_a_process_that_imports_and_makes_but_never_calls_has_nothing_running(api: LogsAPI) -> None:
    """Without a call there is no thread, no exit handler of ours, and no connection."""
    program = """
before = atexit._ncallbacks(), threading.active_count()
delivery = default_delivery()
delivery.stats(), delivery.flush()
print(before == (atexit._ncallbacks(), threading.active_count()))
"""
    done = run(api, program)
    assert clean(done)
    assert "True\n" == done.stdout
    assert 0 == api.connections


def test_no_thread_to_be_had(api: LogsAPI) -> None:
    """Where the system gives no thread, submit goes on, and the calls are delivered by who flushes and at the end."""
    program = """
threading.stack_size(1 << 46)  # no machine has that much: every start of a thread fails from here on
delivery = Delivery()
try:
    threading.Thread(target=print).start()
except RuntimeError as error:
    print(error)
for number in range(3):
    assert delivery.submit(call(f"flushed {number}"))
import structlog
from kwai_middleware import bind_caller, Caller
def show(logger, method, event):
    print(event.get("customer_id"))
    raise structlog.DropEvent
structlog.configure(processors=[structlog.contextvars.merge_contextvars, show])
with bind_caller(Caller(identifier="somebody else")):
    print(delivery.flush())
print(delivery.stats().delivered, delivery.stats().in_memory)
structlog.reset_defaults()
for number in range(3):
    assert delivery.submit(call(f"at the end {number}"))
"""
    done = run(api, program)
    assert clean(done)
    # None: whoever is bound where the flush happens is not the caller of those calls.
    assert "can't start new thread\nNone\nNone\nNone\nTrue\n3 0\n" == done.stdout
    assert Counter({f"{when} {number}": 1 for when in ("flushed", "at the end") for number in range(3)}) == Counter(
        api.arrived
    )


def test_no_thread_to_be_had_and_a_vendor_that_hangs(api: LogsAPI) -> None:
    """Delivering on the thread that ends the process keeps to its time as well."""
    api.answer = lambda entry, times: None
    program = """
threading.stack_size(1 << 46)
default_delivery().submit(call("x"))
atexit.register(lambda: print(time.time()))
"""
    done = run(api, program, KWAI_EXIT_TIMEOUT="1", KWAI_SPOOL="memory:")
    ended = time.time()
    assert "1 records and 0 calls not yet recorded are lost" in done.stderr
    assert ended - float(done.stdout) < 1.0 + 3.0


# Forks


def test_a_hundred_forks_deliver_everything_once(api: LogsAPI) -> None:
    """Children of a parent that is busy in many threads deliver their own records, and none of their parent's."""
    program = """
delivery = default_delivery()
going = True
submitted = []
def keep_busy(name):
    number = 0
    while going:
        record_id = f"parent {name} {number}"
        submitted.append(record_id)
        delivery.submit(call(record_id))
        number += 1
        time.sleep(0.01)
threads = [threading.Thread(target=keep_busy, args=(name,)) for name in range(4)]
for thread in threads: thread.start()
failed = 0
for child in range(100):
    pid = os.fork()
    if pid == 0:
        assert delivery.stats().accepted == 0
        delivery.submit(call(f"child {child}"))
        if child % 2:
            os._exit(0 if delivery.close(60) else 1)
        going = False
        sys.exit(0)
    if child % 10 == 9:
        for _ in range(10):
            failed += os.waitstatus_to_exitcode(os.wait()[1]) != 0
going = False
for thread in threads: thread.join()
assert delivery.flush(60)
assert delivery is default_delivery()
print(failed, len(submitted), delivery.stats().delivered)
"""
    done = run(api, program, KWAI_EXIT_TIMEOUT="60", **UNMEASURED)
    assert clean(done)
    failed, submitted, delivered = map(int, done.stdout.split())
    # The file's ledger is that of all of them.
    assert (0, submitted + 100) == (failed, delivered)
    arrived = Counter(api.arrived)
    assert [] == [name for name, times in arrived.items() if times > 1]
    assert {f"child {child}" for child in range(100)} == {name for name in arrived if name.startswith("child")}
    assert 100 + submitted == len(arrived)


def test_the_child_of_a_fork_while_a_request_is_under_way_sends_nothing_of_it(api: LogsAPI) -> None:
    """Parent forks with one record on the wire and more waiting: each is sent by the parent alone."""
    api.answer = lambda entry, times: (
        None if entry["metadata"]["kwai_record_id"] == "under way" and api.connections == 1 else taken(entry, times)
    )
    program = """
delivery = default_delivery()
delivery.submit(call("under way"))
for number in range(5): delivery.submit(call(f"waiting {number}"))
while not delivery.stats().spooled == 6: time.sleep(0.01)
sys.stdin.readline()
pid = os.fork()
if pid == 0:
    delivery.submit(call("child"))
    os._exit(0 if delivery.flush(60) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    child = subprocess.Popen(
        [sys.executable, "-c", BEGINNING + program],
        env={**os.environ, **api.environment(KWAI_SPOOL="memory:")},
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        api.wait(1)
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("\n")
        child.stdin.flush()
        assert "0\n" == child.stdout.readline()
    assert ["under way", "child"] == api.arrived
    assert 2 == api.connections


def test_a_fork_that_tells_nobody(api: LogsAPI) -> None:
    """A server that forks in C without Python's hooks, as uWSGI may, gets a working delivery in its children."""
    program = """
import ctypes
delivery = default_delivery()
delivery.stats()
# Before there is any thread: with threads the interpreter itself does not survive such a fork.
pid = ctypes.PyDLL(None).fork()
delivery.submit(call("child" if pid == 0 else "parent"))
if pid == 0:
    os._exit(0 if delivery.flush(60) and delivery.stats().accepted == 1 else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = run(api, program)
    assert ("0\n", 0) == (done.stdout, done.returncode)
    assert Counter(["parent", "child"]) == Counter(api.arrived)


def test_a_child_forgets_its_parent(api: LogsAPI) -> None:
    """What was the parent's is never found again, not even by a later child that has the parent's process id."""
    program = """
delivery = Delivery()
delivery.submit(call("parent"))
pid = os.fork()
if pid == 0:
    os._exit(len(delivery._engines) + delivery.stats().accepted)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = run(api, program)
    assert clean(done)
    assert ("0\n", ["parent"]) == (done.stdout, api.arrived)


def test_the_child_of_a_closed_delivery_is_closed(api: LogsAPI) -> None:
    """A fork reopens nothing."""
    program = """
delivery = Delivery()
delivery.close()
pid = os.fork()
if pid == 0:
    os._exit(0 if delivery.is_closed and not delivery.submit(call("x")) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    done = run(api, program)
    assert clean(done)
    assert "0\n" == done.stdout


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_deliver_before_they_leave(api: LogsAPI, tmp_path: object, method: str) -> None:
    """They end without the interpreter's exit handlers; their records are delivered all the same."""
    script = f"""{BEGINNING}
import multiprocessing

def work(number):
    default_delivery().submit(call(f"child {{number}}"))

if __name__ == "__main__":
    default_delivery().submit(call("parent"))
    context = multiprocessing.get_context({method!r})
    children = [context.Process(target=work, args=(number,)) for number in range(3)]
    for child in children: child.start()
    for child in children: child.join()
"""
    path = f"{tmp_path}/script.py"
    with open(path, "w") as file:
        file.write(script)
    done = subprocess.run(
        [sys.executable, "-X", "dev", *NO_FORK_WARNING, path],
        env={**os.environ, **api.environment(), "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert clean(done)
    assert Counter(["parent", "child 0", "child 1", "child 2"]) == Counter(api.arrived)


# Servers


@pytest.mark.parametrize("worker", [["-k", "sync"], ["-k", "gthread", "--threads", "4"]], ids=["sync", "gthread"])
def test_gunicorn_with_preload(api: LogsAPI, worker: list[str]) -> None:
    """Records of the master and of every worker arrive once, those of the last requests before SIGTERM too."""
    port = free_port()
    # A worker that is told to end while it begins does not hear it: gunicorn waits for it in vain.
    argv = ["-m", "gunicorn", "--preload", "-w", "3", "--graceful-timeout", "5", *worker]
    argv += ["-b", f"127.0.0.1:{port}", "tests.apps.preloaded:app"]
    answers: list[str] = []
    with running(argv, ready=f"http://127.0.0.1:{port}/ready", env=api.environment()) as server:
        for number in range(60):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{number}") as response:
                answers.append(response.read().decode())
        server.stop()
    arrived = Counter(name for name in api.arrived if not name.startswith("/ready"))
    assert Counter(["while importing", *answers]) == arrived


def test_gunicorn_replaces_its_workers_without_a_loss(api: LogsAPI) -> None:
    """A worker that ends after some requests delivers what it has; so does the next one."""
    port = free_port()
    argv = ["-m", "gunicorn", "--preload", "-w", "2", "--max-requests", "5", "-b", f"127.0.0.1:{port}"]
    answers: list[str] = []
    with running(
        [*argv, "tests.apps.preloaded:app"], ready=f"http://127.0.0.1:{port}/ready", env=api.environment()
    ) as server:
        for number in range(30):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{number}") as response:
                answers.append(response.read().decode())
        server.stop()
    arrived = Counter(name for name in api.arrived if not name.startswith("/ready"))
    assert Counter(["while importing", *answers]) == arrived
    assert len({answer.split()[1] for answer in answers}) > 2


GEVENT = """
import gevent.monkey
gevent.monkey.patch_all()
import gevent
"""


def test_under_gevent_the_work_is_done_by_real_threads(api: LogsAPI) -> None:
    """In a patched process records are made beside the hub, and a flush lets the other greenlets go on."""
    program = f"""{GEVENT}
from kwai_middleware import _native as native
turns = 0
def turn():
    global turns
    while True:
        turns += 1
        gevent.sleep(0.001)
gevent.spawn(turn)
class Slow:
    secrets, logged_by_vendor, size = (), False, 0
    def build(self):
        # A real sleep: on a greenlet it would stop the hub.
        gevent.monkey.get_original("time", "sleep")(0.5)
        return call("slow")
    def release(self): pass
delivery = default_delivery()
assert native.is_patched()
for number in range(20): delivery.submit(call(str(number)))
delivery.submit(Slow())
print(delivery.flush(60), turns > 50)
print(delivery.close(60))
delivery = Delivery()
delivery.submit(call("at the end"))
"""
    done = run(api, program)
    assert clean(done)
    assert "True True\nTrue\n" == done.stdout
    assert Counter([*map(str, range(20)), "slow", "at the end"]) == Counter(api.arrived)


def test_a_flush_under_gevent_has_a_deadline(api: LogsAPI) -> None:
    """With a vendor that hangs a flush gives up in time there too."""
    api.answer = lambda entry, times: None
    program = f"{GEVENT}\ndefault_delivery().submit(call('x'))\nprint(default_delivery().flush(0.2))"
    done = run(api, program, KWAI_EXIT_TIMEOUT="0.2", KWAI_SPOOL="memory:")
    assert ("False\n", 0) == (done.stdout, done.returncode)
    assert "1 records and 0 calls not yet recorded are lost" in done.stderr


def test_gunicorn_with_gevent_workers(api: LogsAPI) -> None:
    """Every request's record arrives once from a patched worker."""
    port = free_port()
    argv = ["-c", f"{GEVENT}\nfrom gunicorn.app.wsgiapp import run\nrun()", "-w", "2", "-k", "gevent", "--preload"]
    answers: list[str] = []
    with running(
        [*argv, "-b", f"127.0.0.1:{port}", "tests.apps.preloaded:app"],
        ready=f"http://127.0.0.1:{port}/ready",
        env=api.environment(),
    ) as server:
        for number in range(30):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{number}") as response:
                answers.append(response.read().decode())
        server.stop()
    arrived = Counter(name for name in api.arrived if not name.startswith("/ready"))
    assert Counter(["while importing", *answers]) == arrived


def test_under_gevent_records_go_by_https_too(tmp_path: Path) -> None:
    """A patched process trusts, proves and encrypts as any other."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    proof = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(proof)
    with logs_api() as api:

        def serve(connection: Connection) -> None:
            with proof.wrap_socket(connection.sock, server_side=True) as tls:
                api.serve(Connection(tls))

        with raw_server(serve) as server:
            api.url = f"https://localhost:{server.port}/api"
            program = f"{GEVENT}\nfor number in range(3): default_delivery().submit(call(str(number)))"
            assert clean(run(api, program, SSL_CERT_FILE=str(tmp_path / "authority.pem")))
    assert (["0", "1", "2"], 1) == (api.arrived, api.connections)


def test_our_threads_import_nothing(api: LogsAPI) -> None:
    """A process that forks during an import gives its child half a module; so all is there before the first call."""
    program = """
delivery = Delivery()
before = set(sys.modules)
delivery.submit(call("x"))
print(delivery.flush(60), set(sys.modules) - before)
"""
    done = run(api, program)
    assert clean(done)
    assert "True set()\n" == done.stdout
