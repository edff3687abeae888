"""What can be seen of Operon from outside: spans and metrics through OpenTelemetry's API, and log records.

The rule: who configured nothing pays nothing. Whether there is a tracer or a meter is looked up once, when an executor
starts; without either, no span, no attribute and no measurement is made anywhere, and `Telemetry.on` is the one thing
that a step looks at. And what is seen never decides anything: no recorded value and no order depends on it.

    observer   Telemetry, which the runtime calls
    lives      Life: the span of one life of a workflow
    spans      names and attributes; the text form of a trace context
    metrics    the instruments
    hidden     the masked arguments of what runs, which are cut out of its logs and spans
    logs       fields and formats of log records
    exporting  the SDK, from the standard OTEL_* variables, for `operon start`
"""
