"""A process that is sent signed headers, one a line, and says how many of them it let through.

Run as `python -m tests.apps.takes_signed_headers FILE SECRET`; FILE is the replay store that it shares.
"""

from __future__ import annotations

import sys
from pathlib import Path

from kwai_middleware.signed_identity import SignedIdentity
from tests.apps.doors import WSGIDoor
from tests.support.replay_stores import SQLite


def main() -> None:
    """Say that it is ready, and answer each line with a status."""
    store = SQLite(Path(sys.argv[1]))
    identify = SignedIdentity(secrets=[sys.argv[2]], replay_store=store)
    say("ready")
    door = WSGIDoor()
    for line in sys.stdin:
        seen = door.ask([("x-kwai-identity", line.strip())], identify=identify)
        say(str(seen.status))
    store.close()


def say(line: str) -> None:
    """Print a line, now."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
