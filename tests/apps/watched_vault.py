"""The Flask example among all diagnostics, with keys from a vault: the file that `VAULT` names."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from werkzeug.serving import run_simple

import kwai_middleware as kwai
from tests.apps.watched_flask import example


def keys_of(caller: kwai.Caller) -> list[kwai.Credential]:
    """The customer's key; one customer's is never found."""
    if caller.identifier == "unlucky":
        raise ConnectionError(f"the vault does not answer for {caller}")
    return [kwai.Credential(api_key=kwai.Secret(Path(os.environ["VAULT"]).read_text()))]


application = kwai.WSGIMiddleware(
    example.app, credentials=kwai.first_of(kwai.HeaderCredentials(), kwai.KeyResolver(keys_of))
)

if __name__ == "__main__":
    # An end at which everything that waits is still reported and delivered.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    example.app.debug = True
    run_simple("127.0.0.1", int(sys.argv[1]), application, use_debugger=True, threaded=True)
