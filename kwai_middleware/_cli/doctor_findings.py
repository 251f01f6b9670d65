"""What `doctor` has found: a finding, and all of them on the way out, without a key in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from kwai_middleware._cli.output import counted, print_json, say, shown
from kwai_middleware._redaction import MASK, Keys, mask_text
from kwai_middleware._secret import Secret

__all__ = ["Finding", "Hidden", "Severity", "hidden_of", "report"]

Severity = Literal["ok", "note", "warning", "error"]

_LABELS: Final[Mapping[Severity, str]] = {"ok": "ok", "note": "note", "warning": "warn", "error": "ERROR"}
_WIDTH: Final = 6
_SECRET_NAME: Final = re.compile(r"(?:KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL)S?(?:_|$)", re.IGNORECASE)
_PASSWORD_IN_URL: Final = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
_SHORTEST: Final = 8
"""A shorter value of a variable could be any word, and would be masked everywhere."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: Which of the checks: `app`, `order`, `trust`, ...
        severity: `ok`; `note` for what may well be meant so; `warning`; `error` for what does harm, or does not work.
        name: Of the finding, for programs: it stays when the words change.
        what: In words.
        where: The line, as `file:number`, or what was looked at.
        change: The line to write instead, or what to do.
    """

    check: str
    severity: Severity
    name: str
    what: str
    where: str = ""
    change: str = ""


class Hidden(NamedTuple):
    """What is never shown: keys, and texts that cannot be keys."""

    keys: Keys
    phrases: list[str]


def hidden_of(environ: Mapping[str, str], *more: Secret | None) -> Hidden:
    """Return what to hide: the values of variables that are called like a secret, and `more`."""
    values = [
        value.strip()
        for name, value in environ.items()
        if len(value.strip()) >= _SHORTEST and _SECRET_NAME.search(name)
    ]
    secrets = {value: _secret(value) for value in values}
    phrases = [value for value, secret in secrets.items() if secret is None]
    return Hidden(Keys.of([secret for secret in (*secrets.values(), *more) if secret is not None]), phrases)


def report(app: str, findings: Iterable[Finding], hidden: Hidden, *, is_json: bool) -> int:
    """Print the findings, each once; 1 when one of them is worse than a note."""
    cleaned = list(dict.fromkeys(_cleaned(finding, hidden) for finding in findings))
    numbers = Counter(finding.severity for finding in cleaned)
    if is_json:
        documents = [_document(finding) for finding in cleaned]
        print_json({"app": app, **{f"{each}s": numbers[each] for each in _BAD}, "findings": documents})
    else:
        for finding in cleaned:
            _show(finding)
        say()
        say(f"{', '.join(counted(numbers[each], each) for each in _BAD)}.")
    return int(bool(numbers["error"] or numbers["warning"]))


_BAD: Final[tuple[Severity, ...]] = ("error", "warning", "note")


def _show(finding: Finding) -> None:
    say(f"{_LABELS[finding.severity]:<{_WIDTH}}{finding.check:<8}{finding.what}")
    for label, text in (("where", finding.where), ("change", finding.change)):
        if text:
            say(f"{'':<{_WIDTH}}{label:<8}{text}")


def _document(finding: Finding) -> dict[str, Any]:
    return {
        "check": finding.check,
        "severity": finding.severity,
        "name": finding.name,
        "what": finding.what,
        "where": finding.where or None,
        "change": finding.change or None,
    }


def _cleaned(finding: Finding, hidden: Hidden) -> Finding:
    what, where, change = (_clean(text, hidden) for text in (finding.what, finding.where, finding.change))
    return Finding(finding.check, finding.severity, finding.name, what, where, change)


def _clean(text: str, hidden: Hidden) -> str:
    for phrase in hidden.phrases:
        text = text.replace(phrase, MASK)
    return shown(_PASSWORD_IN_URL.sub(rf"\1{MASK}@", mask_text(text, hidden.keys)))


def _secret(text: str) -> Secret | None:
    try:
        return Secret(text)
    except ValueError:
        return None
