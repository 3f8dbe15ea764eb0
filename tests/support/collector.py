"""A collector of traces: takes spans by OTLP over HTTP, and keeps them in memory."""

import gzip
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

ERROR = trace_pb2.Status.STATUS_CODE_ERROR


@dataclass(frozen=True)
class CollectedSpan:
    """One span, as it crossed the network.

    Attributes:
        parent_id: Empty if it has no parent.
        kind: ``internal``, ``producer``, ``consumer``, ``client``.
        started_ns: Nanoseconds since the epoch.
        ended_ns: Nanoseconds since the epoch.
        links: Ids of the spans that it is linked with.
        error: Description of its error; ``None`` if it has no error.
        service: Name of the service that sent it.
    """

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: str
    started_ns: int
    ended_ns: int
    attributes: Mapping[str, Any]
    links: tuple[str, ...]
    error: str | None
    service: str


@dataclass
class Collector:
    """The spans that were received.

    Attributes:
        url: Value for ``OTEL_EXPORTER_OTLP_ENDPOINT``.
        spans: Spans in the order of their arrival.
    """

    url: str = ""
    spans: list[CollectedSpan] = field(default_factory=list)

    def of_trace(self, trace_id: str) -> list[CollectedSpan]:
        """Return the spans of a trace by their start."""
        found = [span for span in self.spans if span.trace_id == trace_id]
        return sorted(found, key=lambda span: span.started_ns)

    def named(self, name: str, trace_id: str = "") -> list[CollectedSpan]:
        """Return the spans of that name by their start, of one trace or of all."""
        found = [s for s in self.spans if s.name == name and trace_id in ("", s.trace_id)]
        return sorted(found, key=lambda span: span.started_ns)


@contextmanager
def running_collector() -> Iterator[Collector]:
    """Listen on 127.0.0.1 while the block runs."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            collector.spans.extend(read_request(body))
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


def read_request(body: bytes) -> Iterator[CollectedSpan]:
    """Read the spans of one request."""
    for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = read_attributes(of_resource.resource.attributes).get("service.name", "")
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield read_span(span, service=service)


def read_span(span: trace_pb2.Span, *, service: str) -> CollectedSpan:
    """Read one span."""
    return CollectedSpan(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        started_ns=span.start_time_unix_nano,
        ended_ns=span.end_time_unix_nano,
        attributes=read_attributes(span.attributes),
        links=tuple(link.span_id.hex() for link in span.links),
        error=span.status.message if span.status.code == ERROR else None,
        service=service,
    )


def read_attributes(pairs: Any) -> dict[str, Any]:
    """Read attributes with one value each."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
