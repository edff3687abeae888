"""The instruments. Counters and histograms are told of what happens; gauges read plain attributes when they are asked.

A gauge is read in the exporter's thread, so what it reads are numbers, never a collection that the event loop changes.
Instruments belong to the meter provider: OpenTelemetry takes the callbacks of a gauge once, so applications and
restarts that share a provider share its instruments, and each executor adds itself to what the gauges read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple
from weakref import WeakKeyDictionary

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

# Of seconds: a commit takes about one millisecond, a communicator may take a minute.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
# Recommended by https://opentelemetry.io/docs/specs/semconv/http/http-metrics/
HTTP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
RECORDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Gauges(NamedTuple):
    """What an executor is at a moment."""

    live: int = 0  # workflows in memory
    parked: int = 0  # workflows of this executor that only wait, out of memory
    notify_seconds: float | None = None  # from a NOTIFY to its being heard


class Metrics:
    """The instruments of one meter provider."""

    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter("operon")
        self.started = meter.create_counter(
            "operon.workflow.started", "{workflow}", "workflows that were started by this process"
        )
        self.completed = meter.create_counter(
            "operon.workflow.completed", "{workflow}", "workflows that ended with a result"
        )
        self.failed = meter.create_counter(
            "operon.workflow.failed", "{workflow}", "workflows that ended with an error, were cancelled, or are dead"
        )
        self.restarted = meter.create_counter(
            "operon.workflow.restarted", "{restart}", "lives of workflows that follow a crash, here or elsewhere"
        )
        self.supervision = meter.create_counter(
            "operon.supervision.events", "{event}", "what happened to executors, supervisors and actors"
        )
        self.step = meter.create_histogram(
            "operon.step.duration",
            "s",
            "from the call of a step to its answer; replayed steps are not counted",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self.commit_size = meter.create_histogram(
            "operon.commit.size", "{record}", "records in a group commit", explicit_bucket_boundaries_advisory=RECORDS
        )
        self.commit = meter.create_histogram(
            "operon.commit.duration", "s", "how long a group commit takes", explicit_bucket_boundaries_advisory=SECONDS
        )
        self.mailbox = meter.create_histogram(
            "operon.mailbox.depth",
            "{message}",
            "messages known to wait under a topic when one of them is received; 64 stands for 64 or more",
            explicit_bucket_boundaries_advisory=RECORDS,
        )
        self.request = meter.create_histogram(
            "http.server.request.duration",
            "s",
            "Duration of HTTP server requests.",
            explicit_bucket_boundaries_advisory=HTTP_SECONDS,
        )
        meter.create_observable_gauge(
            "operon.workflow.live", [self._live], "{workflow}", "workflows in the memory of this process"
        )
        meter.create_observable_gauge(
            "operon.workflow.parked", [self._parked], "{workflow}", "workflows of this process that wait out of memory"
        )
        meter.create_observable_gauge(
            "operon.notify.latency", [self._notify], "s", "from a notification to its being heard, when last tried"
        )
        self._sources: tuple[Callable[[], Gauges], ...] = ()  # replaced as a whole: gauges read it in another thread

    def observe(self, source: Callable[[], Gauges]) -> None:
        """From now on the gauges ask this executor too."""
        self._sources = (*self._sources, source)

    def forget(self, source: Callable[[], Gauges]) -> None:
        """This executor is gone."""
        self._sources = tuple(each for each in self._sources if each != source)

    def _live(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(sum(source().live for source in self._sources))]

    def _parked(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(sum(source().parked for source in self._sources))]

    def _notify(self, _: CallbackOptions) -> Iterable[Observation]:
        known = [seconds for source in self._sources if (seconds := source().notify_seconds) is not None]
        return [Observation(max(known))] if known else []


_of_provider: WeakKeyDictionary[MeterProvider, Metrics] = WeakKeyDictionary()


def metrics_of(provider: MeterProvider) -> Metrics:
    """The instruments of a provider, made on first use."""
    known = _of_provider.get(provider)
    if known is None:
        known = _of_provider[provider] = Metrics(provider)
    return known
