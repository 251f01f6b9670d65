"""The project as a whole: its exports, its import, its files."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import kwai_middleware
from tests.support.processes import PROJECT

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
IGNORED = {"__pycache__", "dist", "htmlcov"}
CONTRACT = {
    "ASGIMiddleware",
    "WSGIMiddleware",
    "HeaderIdentity",
    "HeaderCredentials",
    "KeyResolver",
    "SignedIdentity",
    "UserIdentity",
    "first_of",
    "explain",
    "key_state",
    "bind_reference",
    "Caller",
    "Credential",
    "Secret",
    "current_caller",
    "bind_caller",
    "carry_caller",
    "Settings",
    "Route",
    "Delivery",
    "default_delivery",
    "CompletedCall",
}
"""What the README tells users to import from the package itself."""


def project_files() -> Iterator[Path]:
    """Every file that belongs to the project: no environment, cache or version control."""
    folders = [PROJECT]
    while folders:
        for path in folders.pop().iterdir():
            if path.is_dir():
                if path.name not in IGNORED and (not path.name.startswith(".") or path.name == ".ci"):
                    folders.append(path)
            elif path.suffix != ".pyc" and path.name != ".git" and not path.name.startswith(".coverage"):
                yield path


def module_names() -> list[str]:
    """Every module of the package, by the name one imports."""
    paths = sorted((PROJECT / "kwai_middleware").rglob("*.py"))
    return [".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__") for path in paths]


def run_python(program: str, *arguments: str) -> str:
    """Run a program in a fresh interpreter and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", program, *arguments], cwd=PROJECT, capture_output=True, text=True, timeout=60
    )
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout


def test_the_front_door_offers_the_whole_contract() -> None:
    """Every name that the README promises can be imported from the package itself."""
    assert set() == CONTRACT - set(kwai_middleware.__all__)


@pytest.mark.parametrize("name", module_names())
def test_exported_names_exist_once(name: str) -> None:
    """Each name in a module's `__all__` exists, and stands there once."""
    module = importlib.import_module(name)
    exported: list[str] = list(getattr(module, "__all__", []))

    assert sorted(set(exported)) == sorted(exported)
    assert [] == [name for name in exported if not hasattr(module, name)]


def test_the_front_door_exports_all_it_imports() -> None:
    """The package's public attributes are its `__all__`, its modules and nothing else."""
    public = {
        name
        for name, value in vars(kwai_middleware).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }

    assert public == {name for name in kwai_middleware.__all__ if not name.startswith("_")} - {
        name for name, value in vars(kwai_middleware).items() if isinstance(value, ModuleType)
    }


WITHOUT_HTTPX2 = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in ("httpx2", "httpcore2"):
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)

sys.meta_path.insert(0, Absent())
import kwai_middleware, kwai_middleware.httpx_transport
kwai_middleware.httpx_transport.client().close()
try:
    import kwai_middleware.httpx2_transport
except ImportError as error:
    print(error)
"""


def test_works_without_httpx2_and_says_how_to_get_it() -> None:
    """Where httpx2 is not installed all but its own door works, and that door names the command that installs it."""
    assert "pip install 'kwai-middleware[httpx2]'" in run_python(WITHOUT_HTTPX2).replace('"', "'")


IMPORT_WATCHED = """
import asyncio, json, logging, os, sys, threading
import aiohttp, httpx, httpx2, requests, starlette.applications, structlog  # what these do at import is theirs

events, reads = [], []
ACTS = ("socket.", "subprocess.", "os.fork", "os.exec", "os.system", "os.posix_spawn")
sys.addaudithook(lambda event, _: event.startswith(ACTS) and events.append(event))

def watch(frame, event, called):
    if event == "c_call" and called.__module__ == "_thread" and called.__name__.startswith("start_"):
        events.append(called.__name__)

class Environment(dict):
    def __getitem__(self, name):
        frame = sys._getframe(1)
        while frame.f_code.co_filename.removesuffix(">").removesuffix(".py").endswith(("os", "_collections_abc")):
            frame = frame.f_back
        if "kwai_middleware" in frame.f_code.co_filename:
            reads.append(name)
        return super().__getitem__(name)

os.environ._data = Environment(os.environ._data)
watched = [
    httpx.Client, httpx.AsyncClient, httpx.HTTPTransport, httpx2.Client, httpx2.AsyncClient, httpx2.HTTPTransport,
    starlette.applications.Starlette, threading.Thread, logging.Logger, asyncio.Task, structlog.BoundLogger, sys,
]
patched = lambda: [{name: id(value) for name, value in vars(it).items() if callable(value)} for it in watched]
before, handlers = patched(), list(logging.getLogger().handlers)
sys.setprofile(watch)
for name in sys.argv[1:]:
    __import__(name)
sys.setprofile(None)
print(json.dumps({
    "events": events, "environment": reads, "threads": threading.active_count(), "patched": before != patched(),
    "logging": handlers != logging.getLogger().handlers, "structlog": structlog.is_configured(),
}))
"""


def test_nothing_happens_at_import() -> None:
    """Importing every module starts no thread or process, opens no socket, reads no variable and patches nothing."""
    happened = json.loads(run_python(IMPORT_WATCHED, *module_names()))

    assert happened == {
        "events": [],
        "environment": [],
        "threads": 1,
        "patched": False,
        "logging": False,
        "structlog": False,
    }


def test_examples_in_docstrings_run() -> None:
    """Every example in a docstring of the package prints what it says."""
    results = {name: doctest.testmod(importlib.import_module(name)) for name in module_names()}

    assert {} == {name: result for name, result in results.items() if result.failed}


def test_the_version_is_the_same_everywhere() -> None:
    """The changelog's newest entry, the project file and the installed package name one version."""
    newest = re.search(r"^## \[(.+?)\]", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert newest is not None
    assert PYPROJECT["project"]["version"] == newest[1]
    assert PYPROJECT["project"]["version"] == importlib.metadata.version("kwai-middleware")


# Written so that this file does not match itself.
FORBIDDEN = re.compile(
    r"pypi\.(?:org|io)|python[h]osted\.org|index-ur[l]|find-link[s]|(?:^|[\s\"'=(])/(?:root|home|work|Users|opt)/[a-z]"
    r"|\bTOD[O]\b|\bFIXM[E]\b|NotImplementedErro[r]|\b[Rr]ule \d|\b[Ii]ssue \d",
    re.MULTILINE,
)


def test_no_file_names_an_index_or_a_path_of_one_machine() -> None:
    """No file holds the address of a package index, a path of somebody's machine, or a reminder to finish it."""
    found = {
        str(path.relative_to(PROJECT)): matches
        for path in project_files()
        if (matches := FORBIDDEN.findall(path.read_text(errors="replace")))
    }
    allowed = {"CONTRIBUTING.md": ["index-" + "url"]}  # the option that keeps it out

    assert found == allowed


@pytest.mark.parametrize("folder", ["kwai_middleware", "examples", "tests/support"])
def test_no_file_is_long(folder: str) -> None:
    """A file does one job, and is short enough to read in one go."""
    lengths = {path: len(path.read_text().splitlines()) for path in (PROJECT / folder).rglob("*.py")}

    assert {} == {str(path.relative_to(PROJECT)): lines for path, lines in lengths.items() if lines > 300}


def test_every_test_states_its_promise() -> None:
    """Each test function has a docstring: the promise it holds, as a sentence."""
    silent = [
        f"{path.relative_to(PROJECT)}: {node.name}"
        for path in (PROJECT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        if not (ast.get_docstring(node) or "").endswith(".")
    ]

    assert [] == silent


EXTRAS = PYPROJECT["project"]["optional-dependencies"]


@pytest.mark.parametrize(("name", "extras"), [("dev", [*EXTRAS]), ("bench", ["httpx2", "sandbox"])])
def test_every_requirement_is_pinned_and_hashed(name: str, extras: list[str]) -> None:
    """All that the project files ask for is pinned with hashes; no line names a place to get it from."""
    pinned = (PROJECT / "requirements" / f"{name}.txt").read_text()
    wanted = [
        *PYPROJECT["project"]["dependencies"],
        *(name for extra in extras for name in EXTRAS[extra]),
        *PYPROJECT["build-system"]["requires"],
        *re.findall(r"^[a-z][^#\n]*", (PROJECT / "requirements" / f"{name}.in").read_text(), re.MULTILINE),
    ]
    names = {re.split(r"[^A-Za-z0-9._-]", name)[0].replace(".", "-") for name in wanted}
    entries = re.findall(
        r"^([a-z0-9-]+)==[^ ]+(?: ; [^\n]+?)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", pinned, re.MULTILINE
    )

    assert set() == names - {name for name, _ in entries}
    assert sum(hashes.count("\n") + 1 for _, hashes in entries) == len(pinned.splitlines())
