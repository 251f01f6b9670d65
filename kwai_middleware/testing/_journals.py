"""What a sandbox has seen of a key: that it paid, and whether it arrived anywhere else."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Final, NamedTuple

from kwai_middleware.sandbox import Sandbox
from kwai_middleware.sandbox.json_types import is_array, is_object

__all__ = ["JournalReport", "journal_report"]


class JournalReport(NamedTuple):
    """What stands in the journals of a sandbox.

    Attributes:
        paid: How many calls the key paid.
        misplaced: Where the key arrived although it does not belong there, and what the journal shows of it.
        texts: Every text of the journals, to be searched for the key in other spellings.
    """

    paid: int
    misplaced: list[tuple[str, str]]
    texts: list[tuple[str, str]]


def journal_report(sandbox: Sandbox, fingerprint: str, customers: Collection[str]) -> JournalReport:
    """Read the journals of a sandbox, in which a key is shown as its fingerprint.

    A call may name the key as what pays it. A record, and a request that brings records, may not.

    Args:
        sandbox: The one that the app under test has called.
        fingerprint: Of the key.
        customers: Whose key it is; a call that it paid is for one of them, or for nobody. Empty: whoever.
    """
    paid = 0
    misplaced: list[tuple[str, str]] = []
    texts: list[tuple[str, str]] = []
    for call in sandbox.calls():
        where = f"sandbox, call {call['number']} ({call['route']})"
        payer = call.pop("paid_by")
        call.pop("doors", None)  # what stands there stands in headers and body as well
        if payer is not None and payer["fingerprint"] == fingerprint:
            paid += 1
            if customers and call["customer"] is not None and call["customer"] not in customers:
                misplaced.append((f"{where}: it paid for another customer", str(call["customer"])))
        for path, text in _leaves(call, ""):
            texts.append((f"{where}{path}", text))
            if fingerprint in text and not _is_payer(path, payer, fingerprint):
                misplaced.append((f"{where}{path}", text))
    for entry in sandbox.logs():
        where = f"sandbox, record {entry['number']}"
        for path, text in _leaves({name: entry[name] for name in ("log", "lost")}, ""):
            texts.append((f"{where}{path}", text))
            # A record names the key that paid by its fingerprint, which is none of the keys that the sandbox saw.
            if fingerprint in entry["keys_seen"] and fingerprint in text and path != ".log.metadata.key_fingerprint":
                misplaced.append((f"{where}{path}", text))
    for entry in sandbox.log_requests():
        where = f"sandbox, request {entry['number']} with records"
        for path, text in _leaves(entry, ""):
            texts.append((f"{where}{path}", text))
            if fingerprint in text:
                misplaced.append((f"{where}{path}", text))
    return JournalReport(paid, misplaced, texts)


_PAYERS: Final = ("headers.authorization", "headers.x-openrouter-api-key")


def _is_payer(path: str, payer: Any, fingerprint: str) -> bool:
    """Whether a member of a call is where the key that pays it came from."""
    if payer is None or payer["fingerprint"] != fingerprint:
        return False
    if payer["source"] == "customer_credentials":
        return ".customer_credentials." in path or ".headers.x-data-" in path
    return path.removeprefix(".").lower() in _PAYERS


def _leaves(value: object, path: str) -> Iterator[tuple[str, str]]:
    if is_object(value):
        for name, part in value.items():
            yield path, str(name)
            yield from _leaves(part, f"{path}.{name}")
    elif is_array(value):
        for part in value:
            if path == ".headers" and is_array(part):
                yield from _leaves(part[1], f".headers.{part[0]}")
            else:
                yield from _leaves(part, path)
    else:
        yield path, str(value)
