"""Sets up OpenTelemetry's SDK for `operon start`, from the standard OTEL_* variables; needs `operon[otel]`.

Only where a variable asks for it: a process with the SDK installed and nothing said about where to would otherwise
complain every few seconds that nobody listens on localhost. An application that set providers of its own keeps them.
Endpoints, headers, sampling, resources and batches are read by the SDK and its exporters themselves; here it is only
decided which exporters there are, by name, as they register themselves (`otlp`, `console`, and whatever is installed).

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any

from opentelemetry import metrics, trace

from operon.errors import ConfigurationError
from operon.masking import masked_logger
from operon.telemetry.observer import is_configured

logger = masked_logger("operon.telemetry")

ASKING = ("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_EXPORTER_OTLP_")
PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


def export_as_told(environ: Mapping[str, str], service_name: str) -> None:
    """Sends spans and metrics where the environment says. Raises ConfigurationError for an exporter that is not there.

    service_name: what the service is called where no variable says it.
    """
    asked = any(environ[name] for name in environ if name.startswith(ASKING))
    if not asked or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return
    try:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        logger.warning("OTEL_* variables are set, and the OpenTelemetry SDK is not installed: pip install operon[otel]")
        return
    resource = Resource.create()
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": service_name}))
    spans = exporters("traces", environ)
    if spans and not is_configured(trace.get_tracer_provider()):
        tracers = TracerProvider(resource=resource)
        for exporter in spans:
            tracers.add_span_processor(BatchSpanProcessor(exporter()))
        trace.set_tracer_provider(tracers)
    measurements = exporters("metrics", environ)
    if measurements and not is_configured(metrics.get_meter_provider()):
        readers: list[MetricReader] = [
            exporter() if issubclass(exporter, MetricReader) else PeriodicExportingMetricReader(exporter())
            for exporter in measurements
        ]
        metrics.set_meter_provider(MeterProvider(readers, resource=resource))


def exporters(signal: str, environ: Mapping[str, str]) -> list[type[Any]]:
    """The exporters of a signal, `traces` or `metrics`: those that are named, else OTLP."""
    names = [name.strip() for name in (environ.get(f"OTEL_{signal.upper()}_EXPORTER") or "otlp").split(",")]
    return [exporter(name, signal, environ) for name in names if name and name.lower() != "none"]


def exporter(name: str, signal: str, environ: Mapping[str, str]) -> type[Any]:
    """The class of an exporter. Raises ConfigurationError if it is not installed."""
    entry = name
    if name == "otlp":
        own = environ.get(f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL")
        protocol = own or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "http/protobuf"
        entry = PROTOCOLS.get(protocol, protocol)
    for found in entry_points(group=f"opentelemetry_{signal}_exporter", name=entry):
        loaded: type[Any] = found.load()
        return loaded
    raise ConfigurationError(
        f"there is no exporter {entry!r} for {signal}",
        hint="operon[otel] has otlp over http/protobuf; others are packages of their own, "
        "such as opentelemetry-exporter-otlp-proto-grpc",
    )
