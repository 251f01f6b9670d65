"""The numbers of a delivery for Prometheus: an extra, `kwai-middleware[prometheus]`."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from kwai_middleware._delivery.delivery import Delivery
from kwai_middleware._delivery.ledger import REASONS
from kwai_middleware._delivery.stats import Stats
from kwai_middleware.errors import ConfigurationError

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import REGISTRY, Collector, CollectorRegistry
except ModuleNotFoundError as missing:
    raise ConfigurationError(
        "kwai_middleware.prometheus needs prometheus-client: pip install 'kwai-middleware[prometheus]'"
    ) from missing

__all__ = ["DeliveryCollector", "register"]

_MOST_TYPES: Final = 30
_OTHER: Final = "other"


class DeliveryCollector(Collector):
    """Reads `Delivery.stats()` whenever Prometheus asks; keeps no numbers of its own.

    Of this process: `kwai_calls_total`, `kwai_calls_dropped_total`, `kwai_calls_in_memory`,
    `kwai_thread_restarts_total`, `kwai_errors_swallowed_total`, `kwai_notices_total`. They begin at
    0 with it, in a forked worker too.

    Of the spool: all the others. A spool in a file is shared by the processes of a host, so each of
    them shows the same numbers: take the `max` over processes, never the `sum`. They outlive the
    process. A spool in memory is a process's own.

    No label holds a customer, a key, a model or a text; the values of each are few and fixed.

    A server with several processes on one port answers a scrape from one of them: the numbers of
    the spool are right whichever it is, those of the process are not. Give each process a port of
    its own, or rely on those of the spool. prometheus_client's multi-process mode merges what is in
    its files and knows no collectors: register this one with the registry made for the scrape.

    The delivery is not kept alive; once it is gone there are no numbers any more.

    Args:
        delivery: Whose numbers; or several by names, which the label `delivery` shows then.

    Example:
        >>> from kwai_middleware import Settings
        >>> with Delivery(Settings()) as delivery:
        ...     registry = CollectorRegistry()
        ...     _ = register(delivery, registry)
        ...     registry.get_sample_value("kwai_calls_total", {"outcome": "spooled"})
        0
    """

    def __init__(self, delivery: Delivery | Mapping[str, Delivery]) -> None:
        named = {"": delivery} if isinstance(delivery, Delivery) else delivery
        self._names = [] if isinstance(delivery, Delivery) else ["delivery"]
        self._deliveries = {name: weakref.ref(each) for name, each in named.items()}

    def collect(self) -> Iterable[Metric]:
        """Return all numbers as they are now."""
        found = {name: reference() for name, reference in self._deliveries.items()}
        looks = {name: delivery.stats() for name, delivery in found.items() if delivery is not None}
        return self._families(looks) if looks else ()

    def describe(self) -> Iterable[Metric]:
        """Return the names of all numbers, by which a registry notices that they are there twice."""
        return self._families({})

    def _families(self, looks: Mapping[str, Stats]) -> Iterator[Metric]:
        for family in _OF_DELIVERIES:
            labels = [*self._names, *family.label]
            metric = family.kind(family.name, family.help, labels=labels)
            for name, stats in looks.items():
                own = [name] * len(self._names)
                for value, number in family.numbers(stats).items():
                    metric.add_metric([*own, value][: len(labels)], number)
            yield metric
        for family in _OF_PROCESS:
            metric = family.kind(family.name, family.help, labels=family.label)
            # They are the same in all deliveries of a process.
            for stats in [*looks.values()][:1]:
                for value, number in family.numbers(stats).items():
                    metric.add_metric([value], number)
            yield metric


def register(delivery: Delivery | Mapping[str, Delivery], registry: CollectorRegistry = REGISTRY) -> DeliveryCollector:
    """Make the numbers of a delivery part of what `registry` shows.

    Args:
        delivery: Whose numbers; or several by names.
        registry: By default the one of the process.

    Returns:
        The collector, for `registry.unregister`.

    Raises:
        ValueError: The registry has such numbers already; register several deliveries together.
    """
    collector = DeliveryCollector(delivery)
    registry.register(collector)
    return collector


@dataclass(frozen=True, slots=True)
class _Family:
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily]
    name: str
    help: str
    label: list[str]
    numbers: Callable[[Stats], Mapping[str, float]]


def _one(number: float | None) -> Mapping[str, float]:
    return {} if number is None else {"": number}


def _dropped(stats: Stats) -> Mapping[str, float]:
    # Those that never happened too: an alert on a series that is not there does not fire.
    return {reason.replace(" ", "_"): stats.dropped_by_reason.get(reason, 0) for reason in REASONS}


def _swallowed(stats: Stats) -> Mapping[str, float]:
    """Types of exceptions may be an app's own, made as it runs: so many have a series, the rest share one."""
    kinds = list(stats.swallowed.items())
    rest = sum(number for _, number in kinds[_MOST_TYPES:])
    return dict(kinds[:_MOST_TYPES]) | ({_OTHER: rest} if rest else {})


_OF_DELIVERIES: Final[tuple[_Family, ...]] = (
    _Family(
        CounterMetricFamily,
        "kwai_calls",
        "Completed model calls handed over in this process, by what became of them.",
        ["outcome"],
        lambda stats: {"spooled": stats.spooled, "observed": stats.observed, "dropped": stats.dropped},
    ),
    _Family(
        CounterMetricFamily,
        "kwai_calls_dropped",
        "Calls of this process lost before their record was in the spool, by reason.",
        ["reason"],
        _dropped,
    ),
    _Family(
        GaugeMetricFamily,
        "kwai_calls_in_memory",
        "Calls of this process whose record is not in the spool yet.",
        [],
        lambda stats: _one(stats.in_memory),
    ),
    _Family(
        CounterMetricFamily,
        "kwai_records_appended",
        "Records that came into the spool.",
        [],
        lambda stats: _one(stats.appended),
    ),
    _Family(
        CounterMetricFamily,
        "kwai_records",
        "Records that left the spool, by how.",
        ["state"],
        lambda stats: {
            "delivered": stats.delivered,
            "rejected": stats.rejected,
            "evicted": stats.evicted,
            "purged": stats.purged,
        },
    ),
    _Family(
        GaugeMetricFamily,
        "kwai_records_pending",
        "Records that wait in the spool.",
        [],
        lambda stats: _one(stats.pending),
    ),
    _Family(
        GaugeMetricFamily,
        "kwai_records_pending_bytes",
        "What the waiting records occupy.",
        [],
        lambda stats: _one(stats.pending_bytes),
    ),
    _Family(
        GaugeMetricFamily,
        "kwai_oldest_pending_seconds",
        "Age of the oldest waiting record; 0 when none waits.",
        [],
        lambda stats: _one(stats.oldest_pending or 0.0),
    ),
    _Family(
        GaugeMetricFamily,
        "kwai_last_success_timestamp_seconds",
        "When a record was delivered last; not there before the first one.",
        [],
        lambda stats: _one(stats.last_success),
    ),
    _Family(
        GaugeMetricFamily,
        "kwai_delivery_failing",
        "1 when something went wrong since the last success.",
        [],
        lambda stats: _one(stats.last_error is not None),
    ),
    _Family(
        GaugeMetricFamily,
        "kwai_disk_failing",
        "1 while records wait in memory because the disk cannot be written.",
        [],
        lambda stats: _one(stats.disk_error is not None),
    ),
    _Family(
        CounterMetricFamily,
        "kwai_thread_restarts",
        "How often a thread of this process died of an error and began anew.",
        ["thread"],
        lambda stats: stats.restarts,
    ),
)

_OF_PROCESS: Final[tuple[_Family, ...]] = (
    _Family(
        CounterMetricFamily,
        "kwai_errors_swallowed",
        "Errors of the library itself that the app was spared, in this process, by type.",
        ["type"],
        _swallowed,
    ),
    _Family(
        CounterMetricFamily,
        "kwai_notices",
        "What an operator should know, in this process, by what happened.",
        ["event"],
        lambda stats: stats.notices,
    ),
)
