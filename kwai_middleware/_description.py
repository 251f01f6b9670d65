"""The words that stand in a record in place of media and files."""

from __future__ import annotations

__all__ = ["described"]


def described(*kinds: str, size: int, is_whole: bool = True, digest: str | None = None) -> str:
    """Return a text such as `[audio/mpeg, 48211 bytes, sha256:...]`.

    Args:
        kinds: What it is: a type, a file's name.
        size: Its length in bytes.
        is_whole: That is all of it.
        digest: Its SHA-256 in hexadecimal digits.
    """
    counted = f"{size} bytes" if is_whole else f"at least {size} bytes"
    return f"[{', '.join((*kinds, counted, *(() if digest is None else (f'sha256:{digest}',))))}]"
