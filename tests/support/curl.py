"""The options of curl that our documents use, for machines without curl."""

from __future__ import annotations

import argparse
import sys

import httpx


def main(arguments: list[str]) -> int:
    """Send one request as curl would, and print the answer's body."""
    parser = argparse.ArgumentParser(prog="curl", allow_abbrev=False)
    parser.add_argument("url")
    parser.add_argument("-s", "-S", "-N", action="store_true", dest="quiet")
    parser.add_argument("-L", action="store_true", dest="follow")
    parser.add_argument("-d", dest="form")
    parser.add_argument("-H", action="append", default=[], dest="headers")
    parser.add_argument("--json")
    options = parser.parse_args(arguments)
    headers = [(name, value.strip()) for name, _, value in (header.partition(":") for header in options.headers)]
    if options.json is not None:
        headers.append(("content-type", "application/json"))
    if options.form is not None:
        headers.append(("content-type", "application/x-www-form-urlencoded"))
    content = options.form if options.json is None else options.json
    answer = httpx.request(
        "GET" if content is None else "POST",
        options.url,
        headers=headers,
        content=content,
        follow_redirects=options.follow,
        timeout=60,
        trust_env=False,
    )
    sys.stdout.write(answer.text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
