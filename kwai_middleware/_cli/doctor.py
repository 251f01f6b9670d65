"""`python -m kwai_middleware doctor module:app`: its arguments, and the checks in their order."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Final

from kwai_middleware._cli.doctor_examined import Examined
from kwai_middleware._cli.doctor_findings import Finding, hidden_of, report
from kwai_middleware._cli.doctor_layers import paths_through
from kwai_middleware._cli.doctor_load import SourceLines, load, place_of
from kwai_middleware._cli.doctor_order import check_order
from kwai_middleware._cli.doctor_server import server_of
from kwai_middleware._cli.doctor_serving import check_server
from kwai_middleware._cli.doctor_settings import check_settings, check_vendor, settings_of
from kwai_middleware._cli.doctor_spool import check_spool
from kwai_middleware._cli.doctor_trust import check_trust
from kwai_middleware._cli.output import complain
from kwai_middleware._settings import Settings

__all__ = ["add_arguments", "split"]

_USAGE_ERROR: Final = 2
_ABOUT: Final = (
    "Imports the app as its server does, and looks at it, at its settings, at the spool and, behind --, at the server's"
    " command line. The app gets no request and does not start, and no value of a key is shown. The vendor gets one"
    " request with the app's key and without a record in it, unless --offline is given."
)
_CODES: Final = "exit codes:\n  0  all is well, but for notes\n  1  an error or a warning\n  2  wrong usage\n"
_EXAMPLE: Final = "example:\n  python -m kwai_middleware doctor shop:app -- uvicorn shop:app --host 0.0.0.0\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.usage = "python -m kwai_middleware doctor [options] module:app [-- <the server's command>]"
    parser.description, parser.epilog = _ABOUT, f"{_CODES}\n{_EXAMPLE}"
    parser.add_argument("app", metavar="module:app", help="the app as the server is told; also module:factory()")
    parser.add_argument("--factory", action="store_true", help="module:app names a function that returns the app")
    parser.add_argument("--app-dir", default="", metavar="FOLDER", help="where the module is (default: here)")
    parser.add_argument("--offline", action="store_true", help="do not ask the vendor whether it takes the API key")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=_run)


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words before and behind `--`, where these are a command of this one's kind."""
    if words[:1] != ["doctor"] or "--" not in words:
        return list(words), []
    index = words.index("--")
    return list(words[:index]), list(words[index + 1 :])


def _run(asked: argparse.Namespace) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    place = place_of(asked.app, is_factory=asked.factory)
    if place is None:
        complain("expected module:app, as in 'shop.main:app', or module:factory()")
        return _USAGE_ERROR
    loaded = load(place, asked.app_dir)
    # Now, since the app's code may have set some.
    environ = dict(os.environ)
    settings, wrong = settings_of(environ)
    findings, secrets = [loaded.finding], [None if settings is None else settings.api_key]
    if loaded.app is not None:
        examined = Examined(
            variable=place.variable,
            app=loaded.app,
            paths=paths_through(loaded.app),
            lines=SourceLines(asked.app_dir),
            settings=settings,
            environ=environ,
            server=server_of(asked.command, environ),
        )
        findings += [*check_order(examined), *check_trust(examined), *check_server(examined)]
        secrets += [source.proxy_secret for door in examined.doors() for source in door.by_header]
    findings += wrong
    if settings is not None:
        findings += _about(settings, is_offline=asked.offline)
    return report(asked.app, findings, hidden_of(environ, *secrets), is_json=asked.json)


def _about(settings: Settings, *, is_offline: bool) -> Iterator[Finding]:
    yield from check_settings(settings)
    yield from check_spool(settings)
    yield from check_vendor(settings, is_offline=is_offline)
