"""A process of a fleet: appends records to a shared file and ships from it, at full speed or until it is killed.

Arguments: path, name of the process, number of records, size of a record, records in one batch. Says
`ready`, waits for a line, then prints each record that it "sends", and at the end how long its commits took.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from kwai_middleware._delivery.destination import Destination
from kwai_middleware._delivery.disk.spool import Bounds, DiskSpool
from kwai_middleware._delivery.spool import Outcome, Record

HERE = Destination("https://logs.example/api", "digest-of-a-key")


def main(path: str, name: str, count: int, size: int, batch: int) -> None:
    """Append all, and ship until nothing is left."""
    spool = DiskSpool(path, HERE, Bounds(max_bytes=1 << 30, lease_time=600.0))
    spool.append([])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    commits: list[float] = []
    sent: list[str] = []

    def append() -> None:
        for first in range(0, count, batch):
            some = [Record(f"{name}-{number}", b"x" * size) for number in range(first, min(first + batch, count))]
            begun = time.perf_counter()
            assert len(some) == spool.append(some)
            commits.append(time.perf_counter() - begun)

    appending = threading.Thread(target=append)
    appending.start()
    while appending.is_alive() or spool.backlog():
        handout = spool.lease(100, 1 << 22, bulk=False)
        sent += [row.record_id for row in handout.rows]
        spool.settle([Outcome(row, "delivered") for row in handout.rows])
        if not handout.rows:
            time.sleep(0.01)
    appending.join()
    spool.close()
    commits.sort()
    sys.stdout.write(
        json.dumps(
            {
                "sent": sent,
                "seconds": {
                    "p50": commits[len(commits) // 2],
                    "p99": commits[int(len(commits) * 0.99)],
                    "max": commits[-1],
                },
            }
        )
    )


def hang(path: str) -> None:
    """Append two, lease one of them, and wait to be killed."""
    spool = DiskSpool(path, HERE, Bounds(max_bytes=1 << 30, lease_time=600.0))
    spool.append([Record("0", b"entry"), Record("1", b"entry")])
    sys.stdout.write(f"leased {spool.lease(1, 100, bulk=False).rows[0].record_id}\n")
    sys.stdout.flush()
    sys.stdin.readline()


if __name__ == "__main__":
    if len(sys.argv) == 2:
        hang(sys.argv[1])
    else:
        main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
