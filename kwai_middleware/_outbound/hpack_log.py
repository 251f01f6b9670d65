"""HTTP/2's header compression logs every header value at debug level, keys too: not with us around."""

from __future__ import annotations

import logging
from typing import Final

__all__ = ["hide_header_values"]

# A filter on a parent logger does not see the records of its children, so each one gets it.
_LOGGERS: Final = ("hpack", "hpack.hpack", "hpack.table", "hpack.huffman")


class _HideHeaderValues(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Drop what is logged below `INFO`."""
        return record.levelno >= logging.INFO


_filter: Final = _HideHeaderValues()


def hide_header_values() -> None:
    """Drop hpack's debug records in this process; may be called again."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_filter)
