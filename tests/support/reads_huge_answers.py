"""A program that reads one answer of any size in chunks, and prints what it got, what was recorded, and what that took.

`python -m tests.support.reads_huge_answers http://127.0.0.1:8700 sandbox/huge-300 stream`; the memory is what
Python objects took at their peak, in bytes, beyond what was there before.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tracemalloc
from typing import Any

from kwai_middleware import bind_caller, httpx2_transport
from kwai_middleware._delivery.log_entry import encode
from kwai_middleware._outbound.budget import in_use
from kwai_middleware.sandbox import Sandbox
from tests.support.callers import caller
from tests.support.recording import QUESTION

SHOWN = ("outcome", "truncated", "cost", "completion_tokens", "finish_reason", "model", "stream", "provider")


def main(url: str, model: str, way: str) -> None:
    sandbox = Sandbox(url)
    calls: list[Any] = []
    with httpx2_transport.client(settings=sandbox.settings(), deliver=calls.append) as client, bind_caller(caller()):
        target = f"{sandbox.openrouter_url}/chat/completions"
        # What is only made once does not count.
        client.post(target, json={"model": "sandbox/echo", "messages": QUESTION})
        encode(calls.pop().build())
        digest, size = hashlib.sha256(), 0
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        request = {"model": model, "messages": QUESTION, "stream": way == "stream"}
        with client.stream("POST", target, json=request) as response:
            for chunk in response.iter_raw():
                digest.update(chunk)
                size += len(chunk)
        _, passing = tracemalloc.get_traced_memory()
        held = in_use()
        [pending] = calls
        call = pending.build()
        log = encode(call)
        _, recording = tracemalloc.get_traced_memory()
        pending.release()
    found = {
        "sha256": digest.hexdigest(),
        "size": size,
        "passing": passing - before,
        "recording": recording - before,
        "held": held,
        "held_after": in_use(),
        "record": {name: getattr(call, name) for name in SHOWN},
        "content": len(call.completions[0]["content"]),
        "begins": call.completions[0]["content"][:24],
        "log": len(log),
    }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
