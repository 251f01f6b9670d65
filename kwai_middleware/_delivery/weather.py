"""How deliveries go: what an operator is told of them, once and not for each record."""

from __future__ import annotations

import logging
import time
from typing import Final

from kwai_middleware import _notices
from kwai_middleware._delivery.verdict import BulkVerdict, Fate, Verdict

__all__ = ["Weather"]

_logger: Final = logging.getLogger("kwai_middleware")


class Weather:
    """Remembers the last success and the last error, and logs when one follows the other.

    Attributes:
        last_success: When a record was delivered last, in seconds since 1970.
        last_error: What went wrong last; None when nothing did since the last success.
    """

    def __init__(self) -> None:
        self.last_success: float | None = None
        self.last_error: str | None = None
        self._error_at = 0.0
        self._refused_with: str | None = None

    def of_all(self, success: float | None, error: str | None) -> tuple[float | None, str | None]:
        """Return the last success and the last error of all who ship from the same spool.

        Args:
            success: The last one that the spool knows of.
            error: What the spool knows to have gone wrong since.
        """
        if error is None and self._error_at >= (success or 0.0):
            # Else another process has had more luck since.
            error = self.last_error
        return max(filter(None, (self.last_success, success)), default=None), error

    def observe(self, verdict: Verdict | BulkVerdict) -> None:
        """Take note of one answer."""
        if verdict.fate is not Fate.DELIVERED:
            self.last_error = verdict.reason
            self._error_at = time.time()
        match verdict.fate:
            case Fate.DELIVERED:
                self._succeeded()
            case Fate.REJECTED if isinstance(verdict, Verdict):
                _notices.warn_once(
                    "rejected",
                    verdict.reason[:8],
                    f"the logs API refused a record for good ({verdict.reason[:8]});"
                    " Delivery.stats().rejections tells more",
                )
            case Fate.FAILED:
                _notices.warn_once(
                    "delivery",
                    "failed",
                    f"the logs API cannot be reached or fails ({verdict.reason}); records wait and are sent again",
                )
            case Fate.REFUSED:
                self._refused(verdict.reason)
            case _:
                # A request of many that is not taken is sent in parts; a busy vendor asks for patience only.
                pass

    def tell_of_the_end(self, undelivered: int, unrecorded: int, waiting: int | str, seconds: float) -> None:
        """Say what is lost, and what waits on disk, when a delivery has been closed.

        Args:
            undelivered: Records that are lost.
            unrecorded: Calls that are lost.
            waiting: Records that are not.
            seconds: What time there was to deliver them.
        """
        if unrecorded or undelivered:
            _logger.warning(
                "kwai_middleware: the time to deliver what was left is over (%g s); %d records and %d calls not yet"
                " recorded are lost. Last error: %s",
                seconds,
                undelivered,
                unrecorded,
                self.last_error,
            )
        if waiting:
            _logger.info(
                "kwai_middleware: %s records wait on disk for the next process, or for"
                " `python -m kwai_middleware spool drain`. Last error: %s",
                waiting,
                self.last_error,
            )

    def _succeeded(self) -> None:
        self.last_success = time.time()
        self.last_error = None
        if self._refused_with is not None:
            self._refused_with = None
            _logger.warning("kwai_middleware: the logs API takes records again")

    def _refused(self, reason: str) -> None:
        if self._refused_with != reason:
            self._refused_with = reason
            _logger.error(
                "kwai_middleware: the logs API refuses this app (%s); records wait and nothing is sent but a probe now"
                " and then. Check the API key and base_url of the settings.",
                reason,
            )
