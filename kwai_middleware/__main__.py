"""The command line: one function per command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from kwai_middleware._cli import doctor, spool
from kwai_middleware._route import is_loopback
from kwai_middleware.errors import ConfigurationError

__all__ = ["main"]

_USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; without one print what there is."""
    parser = argparse.ArgumentParser(prog="python -m kwai_middleware", description=__doc__)
    commands = parser.add_subparsers(title="commands", metavar="<command>")
    _add_sandbox(
        commands.add_parser("sandbox", help="run the vendors' APIs on this machine, for development and tests")
    )
    spool.add_commands(commands.add_parser("spool", help="look after the records that wait to be delivered"))
    doctor.add_arguments(commands.add_parser("doctor", help="look for what is wrong with an app and its server"))
    words, command = doctor.split(sys.argv[1:] if arguments is None else arguments)
    asked = parser.parse_args(words, argparse.Namespace(command=command))
    if "run" not in asked:
        parser.print_help()
        return 0
    code: int = asked.run(asked)
    return code


def _add_sandbox(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=_port, default=8700, help="0 takes a free one (default: 8700)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.set_defaults(run=_sandbox)


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 5 or int(text) > 65535:
        raise argparse.ArgumentTypeError("a number from 0 to 65535")
    return int(text)


def _sandbox(asked: argparse.Namespace) -> int:
    from kwai_middleware.sandbox import running

    try:
        running.require_uvicorn()
    except ConfigurationError as error:
        return _complain(str(error))
    from kwai_middleware.sandbox import server

    host: str = asked.host
    try:
        listener = server.listen(host, asked.port)
    except OSError as error:
        return _complain(f"cannot listen on {host} port {asked.port}: {error.strerror}; try another with --port")
    if not is_loopback(host):
        print(f"warning: {host} is not loopback; whoever reaches it sees every prompt sent here", file=sys.stderr)
    shown_host = f"[{host}]" if ":" in host else host
    _print_urls(f"http://{shown_host}:{listener.getsockname()[1]}")
    server.serve(listener)
    return 0


def _print_urls(url: str) -> None:
    print(
        f"""\
The vendors' APIs on this machine; Ctrl-C ends it.

  gateway        {url}/api/
  relay          {url}/api/openrouter/v1
  OpenRouter     {url}/api/v1
  Anthropic's    {url}/api/anthropic   {url}/api
  request logs   {url}/api/request-logs/create/
  what arrived   {url}/sandbox/calls   {url}/sandbox/logs
  models to try  {url}/sandbox/

curl {url}/api/chat/completions -H 'Authorization: Bearer app-key' -H 'Content-Type: application/json' \\
  -d '{{"model": "sandbox/echo", "messages": [{{"role": "user", "content": "Hello"}}],\
 "customer_credentials": {{"openrouter": {{"api_key": "sk-or-v1-acme"}}}},\
 "customer_params": {{"customer_identifier": "acme"}}}}'
""",
        flush=True,
    )


def _complain(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return _USAGE_ERROR


if __name__ == "__main__":
    sys.exit(main())
