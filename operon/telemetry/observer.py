"""Telemetry: what the runtime tells of itself. One for each start of an executor; the runtime looks at `on` first."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from opentelemetry import metrics, trace
from opentelemetry.context import Context, get_current
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import SpanKind, Tracer, TracerProvider

from operon.telemetry import spans
from operon.telemetry.lives import Life, Lives, current_life
from operon.telemetry.metrics import Gauges, Metrics, metrics_of

T = TypeVar("T")


class Telemetry:
    """Makes spans and measurements where a provider is configured, and nothing at all elsewhere.

    tracer, metrics: None where nobody configured one.
    on: whether there is either.
    """

    __slots__ = ("_lives", "metrics", "on", "tracer")

    def __init__(self, tracer: Tracer | None = None, instruments: Metrics | None = None) -> None:
        self.tracer = tracer
        self.metrics = instruments
        self.on = tracer is not None or instruments is not None
        self._lives = Lives()

    # ------------------------------------------------------------------ trace contexts as text

    def origin(self, stored: str | None, name: str) -> str | None:
        """Where the trace of a workflow that is started now goes on: below the current span, or the caller's.

        A workflow that is started outside of any trace begins one, with a span of its own for the start: that one is
        sent off at once, so that every life has a parent to be seen, whatever becomes of the first one.
        """
        if self.tracer is None:
            return stored
        span = trace.get_current_span()
        if not span.get_span_context().is_valid:
            if stored is not None:
                return stored
            attributes: dict[str, spans.Value] = {spans.OPERATION: name, spans.KIND: "workflow"}
            span = spans.begin(self.tracer, f"start {name}", Context(), SpanKind.PRODUCER, attributes)
            spans.end(span)
        return spans.to_text(span)

    def outgoing(self, stored: str | None, destination: UUID) -> str | None:
        """The trace context that a message takes along, out of the span of its sending."""
        if self.tracer is None:
            return stored
        span = trace.get_current_span()
        span.set_attribute(spans.DESTINATION_UUID, str(destination))
        return spans.to_text(span) or stored

    # ------------------------------------------------------------------ workflows and steps

    def life(
        self,
        workflow_uuid: UUID,
        name: str,
        traceparent: str | None,
        *,
        body: bool,
        fresh: bool,
        crashed: bool,
        epoch: int,
        argument_bytes: int,
    ) -> Life:
        """The span of one life of a workflow, and its count.

        body: it is a workflow, not a single step. fresh: it begins here. crashed: it goes on after a crash.
        """
        if self.metrics is not None:
            if fresh:
                self.metrics.started.add(1, {spans.OPERATION: name})
            elif crashed:
                self.metrics.restarted.add(1, {spans.OPERATION: name})
        return Life(
            self.tracer,
            self.metrics,
            self._lives,
            workflow_uuid,
            name,
            traceparent,
            body=body,
            attributes={
                spans.EPOCH: epoch,
                spans.ARGUMENT_BYTES: argument_bytes,
            },
        )

    def failed(self, error: BaseException) -> None:
        """A workflow ends with this exception: it is one of the current life's."""
        if self.on and (life := current_life()) is not None:
            life.failed(error)

    async def step(self, kind: str, name: str, workflow_uuid: UUID, number: int, run: Coroutine[Any, Any, T]) -> T:
        """Runs a step that is not replayed, in its span."""
        started = time.perf_counter()
        failure: str | None = None
        try:
            if self.tracer is None or kind not in spans.SHAPES:
                return await run
            return await self._in_span(self.tracer, kind, name, get_current(), run, (workflow_uuid, number))
        except Exception as error:
            failure = spans.type_of(error.__cause__ or error)
            raise
        finally:
            if self.metrics is not None:
                attributes = {spans.KIND: kind}
                if kind in ("transaction", "communicator", "child"):  # other names may be as many as there are keys
                    attributes[spans.OPERATION] = name
                if failure is not None:
                    attributes[spans.ERROR_TYPE] = failure
                self.metrics.step.record(time.perf_counter() - started, attributes)

    async def entry(self, kind: str, name: str, traceparent: str | None, run: Coroutine[Any, Any, T]) -> T:
        """Runs what a handler or a script does outside of any workflow, below the current span or the caller's."""
        if self.tracer is None:
            return await run
        inside = trace.get_current_span().get_span_context().is_valid
        return await self._in_span(
            self.tracer, kind, name, get_current() if inside else spans.from_text(traceparent), run, None
        )

    async def _in_span(
        self,
        tracer: Tracer,
        kind: str,
        name: str,
        parent: Context,
        run: Coroutine[Any, Any, T],
        step: tuple[UUID, int] | None,
    ) -> T:
        title, shape, attributes = spans.name_and_attributes(kind, name)
        span = spans.begin(tracer, title, parent, shape.kind, attributes)
        if step is not None:
            spans.of_step(span, *step)
        try:
            with spans.Current(trace.set_span_in_context(span, parent)):
                return await run
        except Exception as error:
            raised = error.__cause__ if step is not None else None  # ... and not its copy as a replay gives it
            spans.record(span, raised or error)
            raise
        finally:
            spans.end(span)

    def received(self, traceparent: str | None, depth: int) -> None:
        """A message was received by the step that runs: a link to its sending.

        depth: how many messages are known to wait, this one among them.
        """
        if self.metrics is not None:
            self.metrics.mailbox.record(depth)
        if self.tracer is not None and traceparent is not None:
            sent = trace.get_current_span(spans.from_text(traceparent)).get_span_context()
            trace.get_current_span().add_link(sent)

    # ------------------------------------------------------------------ the executor

    async def commit(self, records: int, run: Coroutine[Any, Any, None]) -> None:
        """Makes a batch durable, and measures it."""
        started = time.perf_counter()
        await run
        if self.metrics is not None:
            self.metrics.commit_size.record(records)
            self.metrics.commit.record(time.perf_counter() - started)

    def buried(self, name: str, error: BaseException) -> None:
        """A workflow crashed too often, and is dead."""
        if self.metrics is not None:
            attributes = {spans.OPERATION: name, spans.STATUS: "DEAD", spans.ERROR_TYPE: spans.type_of(error)}
            self.metrics.failed.add(1, attributes)

    def happened(self, kind: str) -> None:
        """Something that operators want to know happened to an executor, a supervisor or an actor."""
        if self.metrics is not None:
            self.metrics.supervision.add(1, {spans.EVENT: kind})

    def observe(self, source: Callable[[], Gauges]) -> None:
        """From now on gauges ask this executor too."""
        if self.metrics is not None:
            self.metrics.observe(source)

    def forget(self, source: Callable[[], Gauges]) -> None:
        """This executor is gone."""
        if self.metrics is not None:
            self.metrics.forget(source)

    def __repr__(self) -> str:
        return f"<Telemetry: {'spans' if self.tracer else 'no spans'}, {'metrics' if self.metrics else 'no metrics'}>"


SILENT = Telemetry()


class Providers(NamedTuple):
    """Where spans and measurements go. None: to the global provider, if somebody configured one."""

    tracers: TracerProvider | None = None
    meters: MeterProvider | None = None


GLOBAL_PROVIDERS = Providers()


def telemetry(providers: Providers) -> Telemetry:
    """The telemetry of an executor that starts."""
    of_tracers = providers.tracers or trace.get_tracer_provider()
    of_meters = providers.meters or metrics.get_meter_provider()
    tracer = of_tracers.get_tracer("operon") if is_configured(of_tracers) else None
    if isinstance(tracer, trace.NoOpTracer):  # OTEL_SDK_DISABLED
        tracer = None
    instruments = metrics_of(of_meters) if is_configured(of_meters) else None
    return Telemetry(tracer, instruments) if tracer is not None or instruments is not None else SILENT


def is_configured(provider: object) -> bool:
    """Whether a provider is somebody's, and not one that stands in until there is one: those are the API's own."""
    return not type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))
