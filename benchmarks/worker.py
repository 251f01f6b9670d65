"""The process of one variant: sets it up, and does a round whenever it is told to.

Told by lines on its standard input; answers with lines of JSON on what was its standard output, which
by then is its standard error, so that nothing that a variant prints is taken for an answer.
"""

from __future__ import annotations

import gc
import json
import os
import sys

from benchmarks.plan import suite_named


def main(suite: str, case: str, variant: str, quick: str) -> None:
    """Serve rounds of one variant until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    its_case = next(each for each in suite_named(suite).cases if each.name == case)
    its_variant = next(each for each in its_case.variants if each.name == variant)
    with its_variant.prepare(its_case.quick if quick == "quick" else its_case.full) as one_round:
        print("ready", file=answers)
        for _ in sys.stdin:
            gc.collect()
            print(json.dumps(dict(one_round())), file=answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
