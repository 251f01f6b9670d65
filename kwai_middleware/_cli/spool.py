"""`python -m kwai_middleware spool ...`: its arguments, and what all of its commands have in common."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from kwai_middleware._cli import spool_drain, spool_records, spool_status
from kwai_middleware._cli.output import complain, parsed_time
from kwai_middleware._cli.spool_files import SpoolFiles, spool_files
from kwai_middleware.errors import ConfigurationError

__all__ = ["add_commands", "run"]

_Command = Callable[[argparse.Namespace, SpoolFiles], int]

_UNREADABLE: Final = 2
_INTERRUPTED: Final = 1
_CODES: Final = (
    "exit codes:\n  0  {}\n  1  {}\n  2  wrong usage or settings, or a file that cannot be used (the others are)\n"
)
_ABOUT: Final = (
    "Without --spool a command is about the files that KWAI_SPOOL names; 'auto' or a folder: every spool-*.db there,"
    " of whatever app. It makes no file, may run beside apps that use the same files, and shows no key."
)


def add_commands(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the commands."""
    commands = parser.add_subparsers(title="commands", metavar="<command>", required=True)
    status = _command(
        commands,
        "status",
        spool_status.run,
        "show what waits, what became of the rest, and who ships",
        "nothing waits for longer than --max-age, and no rejected record is there",
        "something does, or is",
    )
    status.add_argument(
        "--max-age",
        type=_time,
        default=3600.0,
        metavar="TIME",
        help="how long a record may wait before that is exit code 1: 90s, 15m, 2h, 7d (default: 1h)",
    )
    drain = _command(
        commands,
        "drain",
        spool_drain.run,
        "send what waits for the app of this environment's API key, now",
        "nothing waits any more, and all was delivered",
        "some is left, or was rejected or given up meanwhile",
    )
    drain.add_argument(
        "--timeout", type=_time, default=600.0, metavar="TIME", help="for all of it: 90s, 15m, 2h (default: 10m)"
    )
    rejected = _command(
        commands,
        "rejected",
        spool_records.rejected,
        "show the records that the logs API refused for good, the newest last",
        "done, also when there are none",
        "interrupted",
    )
    rejected.add_argument("--limit", type=_count, default=100, metavar="N", help="the last N (default: 100)")
    rejected.add_argument("--entries", action="store_true", help="with the records themselves; only with --json")
    requeue = _command(
        commands,
        "requeue",
        spool_records.requeue,
        "let rejected records wait again, to be sent once more",
        "done, also when there are none",
        "interrupted",
    )
    purge = _command(
        commands,
        "purge",
        spool_records.purge,
        "delete records, those that wait and those that were rejected, without a trace in the files",
        "done, also when there are none",
        "not deleted: the answer was no, some are being sent at this moment, or traces may be left",
    )
    purge.add_argument("--rejected", action="store_true", help="only those that were rejected")
    purge.add_argument("--yes", action="store_true", help="do not ask")
    for parser_of_records in (rejected, requeue, purge):
        parser_of_records.add_argument("--customer", metavar="ID", help="only those about this customer")
        parser_of_records.add_argument(
            "--older-than", type=_time, metavar="TIME", help="only those recorded longer ago: 90s, 15m, 2h, 7d"
        )


def run(asked: argparse.Namespace) -> int:
    """Run the command that was asked for, and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # In the environment of cron there may be nothing but ASCII.
            stream.reconfigure(errors="backslashreplace")
    command: _Command = asked.command
    try:
        files = spool_files(asked, os.environ)
        code = command(asked, files)
        files.complain_of_unreadable()
        sys.stdout.flush()
    except ConfigurationError as error:
        complain(str(error))
        return _UNREADABLE
    except KeyboardInterrupt:
        complain("interrupted")
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever reads, as `head` does, has had enough; at exit Python would try once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _INTERRUPTED
    return _UNREADABLE if files.unreadable else code


def _command(
    commands: Any,
    name: str,
    command: _Command,
    summary: str,
    good: str,
    bad: str,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {_ABOUT}",
        epilog=_CODES.format(good, bad),
        formatter_class=_Formatter,
    )
    parser.add_argument("--spool", metavar="PATH", help="a file, or a folder of such, instead of KWAI_SPOOL")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.set_defaults(run=run, command=command)
    return parser


class _Formatter(argparse.HelpFormatter):
    """Keeps the lines of the exit codes."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("exit codes:") else super()._fill_text(text, width, indent)


def _time(text: str) -> float:
    try:
        return parsed_time(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < len(text) < 10 or not int(text):
        raise argparse.ArgumentTypeError("a number from 1 to 999999999")
    return int(text)
