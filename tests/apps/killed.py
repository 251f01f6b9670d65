"""Makes calls as fast as it is told, and writes down which of their records are on disk. Is killed at any moment.

Forks one worker for each line it reads, `name rate`; a worker appends the id of each record to a file of its name,
as soon as the ledger says that it is in the spool.
"""

import contextlib
import os
import sys
import time

import kwai_middleware as kwai
from kwai_middleware import CompletedCall


def work(folder: str, name: str, rate: float) -> None:
    """Make calls until killed."""
    delivery = kwai.default_delivery()
    journal = os.open(os.path.join(folder, name), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    made: list[str] = []
    written = 0
    begun = time.monotonic()
    while True:
        if len(made) <= (time.monotonic() - begun) * rate:
            customer = f"customer-{len(made) % 7}"
            record_id = f"{name}-{len(made)}-{customer}"
            made.append(record_id)
            content = b'[{"role":"user","content":"%s: %s"}]' % (customer.encode(), b"x" * 500)
            delivery.submit(
                CompletedCall(
                    record_id=record_id, route="direct", model="m", messages=content, outcome="complete",
                    started_at=time.time(), caller=kwai.Caller(identifier=customer),
                )
            )  # fmt: skip
        else:
            time.sleep(0.001)
        # In the order of submission: so many of the first ones are on disk.
        on_disk = delivery.stats().spooled
        if on_disk > written:
            os.write(journal, "".join(f"{each}\n" for each in made[written:on_disk]).encode())
            written = on_disk


def main(folder: str) -> None:
    """Fork workers, and say each one's process id; forget those that have ended."""
    for line in sys.stdin:
        name, rate = line.split()
        pid = os.fork()
        if not pid:
            try:
                work(folder, name, float(rate))
            finally:
                os._exit(1)
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()
        # None is left when all were killed meanwhile.
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass


if __name__ == "__main__":
    main(sys.argv[1])
