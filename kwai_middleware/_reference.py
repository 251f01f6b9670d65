"""A caller's reference on the other side of a task queue: from the text to a bound caller."""

from __future__ import annotations

import time
from collections.abc import Callable

from kwai_middleware._caller import IDENTITY, caller_of
from kwai_middleware._context import Binding, bind_caller
from kwai_middleware._signing import ReferenceContent, Secrets, reference_signer
from kwai_middleware._unsettled import KeySource
from kwai_middleware.errors import InvalidReference

__all__ = ["bind_reference"]


def bind_reference(
    reference: str,
    *,
    secrets: Secrets | None = None,
    credentials: KeySource | None = None,
    clock: Callable[[], float] = time.time,
) -> Binding:
    """Make the caller of a reference current for the code inside a `with` block, as `bind_caller` does.

    A reference has no keys. With `credentials` they are looked up when a call needs them; without, no key of the
    caller's pays for the block's calls, and under `byok="only"` they are refused.

    Args:
        reference: What `Caller.reference` returned.
        secrets: Those that references are signed with, each of which verifies. None stands for those in the
            environment variable `KWAI_REFERENCE_SECRETS`, separated by commas.
        credentials: A `KeyResolver`, as for `bind_caller`.
        clock: Seconds since 1970.

    Raises:
        InvalidReference: The reference is forged, damaged, or has expired. It is not in the message.
        ConfigurationError: There is no secret, or one of them is none.

    Example:
        >>> from kwai_middleware import Caller, current_caller
        >>> secrets = ["an-example-of-a-secret-0123456789"]
        >>> with bind_reference(Caller(identifier="acme").reference(secrets=secrets), secrets=secrets):
        ...     current_caller().identifier
        'acme'
    """
    content = reference_signer("bind_reference", secrets).verified(reference, ReferenceContent)
    caller = None if content is None else caller_of(content.caller, (*IDENTITY, "byok", "capture"))
    if content is None or caller is None:
        raise InvalidReference(
            "bind_reference: this is no reference of a caller that was signed with one of the secrets here;"
            " it is forged or damaged, or the secrets are not those where it was made"
        )
    if not clock() < content.until:
        raise InvalidReference("bind_reference: the reference has expired; make it with a longer max_age if tasks wait")
    return bind_caller(caller, credentials=credentials, origin="reference")
