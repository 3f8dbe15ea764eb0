"""Traces of a worker, switched on by the standard variables ``OTEL_*``.

The extra ``labelyard[otel]`` is imported only if they are. An application that runs a worker with
a global tracer provider has the spans in its own traces; else the worker makes a provider, which
it does not make global.
"""

import logging
import os
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from labelyard.queues import messaging_system
from labelyard_worker import spans
from labelyard_worker.settings import WorkerSettings

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from labelyard_worker.operations.otel_export import Export

log = logging.getLogger(__name__)

#: Longest that the end of a worker waits for its last spans to be exported.
FLUSH_WITHIN_S: Final = 2.0
EXPORTERS: Final = frozenset({"otlp", "console"})
ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
HTTP: Final = "http/protobuf"
ADVICE: Final = "pip install 'labelyard[otel]'"


class TracingRefusedError(ValueError):
    """A variable of OpenTelemetry has a value that is not supported; the text names the remedy."""


def choose_exporters(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Choose the exporters by the standard variables; none if traces are switched off.

    Unlike in the specification, unset variables switch traces off: a worker without a collector
    would try to reach one for ever.

    Raises:
        TracingRefusedError: An exporter or a protocol is not supported.

    Source:
        OpenTelemetry specification, "Environment Variable Specification" and "OpenTelemetry
        Protocol Exporter".
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return ()
    wanted = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if not wanted and any(environ.get(name) for name in ENDPOINTS):
        wanted = "otlp"
    names = tuple(dict.fromkeys(name.strip() for name in wanted.split(",") if name.strip()))
    if "none" in names:
        return ()
    if unknown := sorted(set(names) - EXPORTERS):
        raise TracingRefusedError(
            f"OTEL_TRACES_EXPORTER={unknown[0]} is not supported: set otlp, console or none"
        )
    protocol = next((environ[name] for name in PROTOCOLS if environ.get(name)), HTTP)
    if "otlp" in names and protocol != HTTP:
        raise TracingRefusedError(
            f"the OTLP protocol {protocol} is not supported: set "
            f"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL={HTTP}, and the collector's port for HTTP (4318)"
        )
    return names


def find_global_provider() -> "TracerProvider | None":
    """Return the tracer provider that the application has set, if there is one."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry import trace

    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider) else provider


class Tracing:
    """Traces of a worker process while it runs."""

    def __init__(self) -> None:
        self._export: Export | None = None

    def start(self, settings: WorkerSettings) -> None:
        """Install a tracer if traces are switched on; a fault is logged and leaves them off."""
        try:
            names = choose_exporters(os.environ)
            if (provider := find_global_provider()) is not None:
                self._install(settings, provider)
            elif names:
                self._install(settings, None, names)
        except ImportError as error:
            why = f"it needs OpenTelemetry: {ADVICE} ({error})"
            log.warning("tracing_off", extra={"fields": {"why": why}})
        except ValueError as error:
            log.warning("tracing_off", extra={"fields": {"why": str(error)}})

    def _install(
        self,
        settings: WorkerSettings,
        provider: "TracerProvider | None",
        names: tuple[str, ...] = (),
    ) -> None:
        from labelyard_worker.operations.otel_spans import OtelTracer

        if provider is not None:
            tracer = batch_tracer = provider.get_tracer("labelyard")
        else:
            from labelyard_worker.operations.otel_export import Export

            self._export = Export(names)
            tracer, batch_tracer = self._export.tracer, self._export.batch_tracer
        system = messaging_system(settings.broker_url)
        spans.install(OtelTracer(tracer, batch_tracer=batch_tracer, messaging_system=system))
        log.info("tracing_on", extra={"fields": {"exporters": ",".join(names) or "application"}})

    def close(self, *, within_s: float = FLUSH_WITHIN_S) -> None:
        """Record no more spans, and export the last ones in the time given."""
        spans.install(spans.Tracer())
        if self._export is None:
            return
        # On a thread that may be left behind: the SDK waits half a minute for a collector.
        thread = threading.Thread(
            target=self._export.shutdown, name="labelyard-tracing-end", daemon=True
        )
        self._export = None
        thread.start()
        thread.join(within_s)
        if thread.is_alive():
            log.warning("traces_not_flushed", extra={"fields": {"within_s": within_s}})
