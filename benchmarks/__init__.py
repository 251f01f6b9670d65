"""The same work done by us and by what one would use instead, measured side by side: `make bench`.

A benchmark measures and says what it found; it asserts nothing. What is a suite and a case stands in
`plan.py`, how they are run in `rounds.py` and `worker.py`, what comes of it in `results.py`; each other
folder is one suite.
"""
