"""`python -m benchmarks.loopback.pings PORT SECONDS`: a line to an echo server every millisecond, from another process.

Prints how long each took as JSON, in seconds. Counted from when it was due: while the server stands still none can be
sent, and those that were due then have waited as well.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from typing import Final

__all__ = ["main"]

_EVERY: Final = 0.001
_LINE: Final = b"ping\n"


def main(port: int, seconds: float) -> None:
    """Ping for a while."""
    took: list[float] = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        due = time.perf_counter()
        end = due + seconds
        while due < end:
            time.sleep(max(0.0, due - time.perf_counter()))
            # Waking up late is no fault of the server's; having waited for the answer before is.
            due = max(due, time.perf_counter()) if not took or took[-1] < _EVERY else due
            connection.sendall(_LINE)
            received = b""
            while received != _LINE:
                received += connection.recv(len(_LINE))
            took.append(time.perf_counter() - due)
            due += _EVERY
    print(json.dumps(took))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
