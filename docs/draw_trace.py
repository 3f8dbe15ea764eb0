"""Draws the trace in tracing.md: a job of three images in two batches, by a real worker.

``python -m docs.draw_trace`` starts the embedded servers, a worker and a collector, and prints
the drawing; it needs the development set-up.
"""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from tests.support import pictures
from tests.support.collector import CollectedSpan, Collector, running_collector
from tests.support.service import READY_WITHIN_S, running_service
from tests.support.waiting import wait_until

from labelyard.messages import Deliver

LABELS: Final = ["a cat", "a cup of coffee", "a rocket"]
BATCH: Final = "labelyard.batch"
#: Attributes that the drawing shows.
SHOWN: Final = (
    "labelyard.image.number",
    "labelyard.attempt",
    "labelyard.verdict",
    "labelyard.delivery",
    "labelyard.outcome",
    "labelyard.batch.size",
    "labelyard.batch.fill",
    "labelyard.device",
    "labelyard.dtype",
    "error.type",
)
NAME_COLUMNS: Final = 34
MS: Final = 1_000_000


def draw(spans: Sequence[CollectedSpan]) -> str:
    """Draw the trace of a job as a tree, and the batches that are linked with its images."""
    job = next(span for span in spans if not span.parent_id and span.name != BATCH)
    letters = dict(zip(batches_of(spans), "ABCDEFGH", strict=False))
    lines = [f"{'trace ' + job.trace_id:<{NAME_COLUMNS + 8}}{'start ms':>9}{'ms':>8}"]
    lines += draw_tree(job, spans, letters, origin_ns=job.started_ns, lead="", below="")
    images = {span.span_id: span for span in spans}
    for batch_id, letter in letters.items():
        batch = images[batch_id]
        linked = [images[link] for link in batch.links if link in images]
        numbers = ", ".join(str(one.attributes["labelyard.image.number"]) for one in linked)
        lines += [
            "",
            f"trace {batch.trace_id}   batch {letter}, linked with images {numbers}",
            draw_span(batch, "", origin_ns=job.started_ns, note=""),
        ]
    return "\n".join(lines)


def batches_of(spans: Sequence[CollectedSpan]) -> list[str]:
    """Return the ids of the batches by their start."""
    batches = [span for span in spans if span.name == BATCH]
    return [span.span_id for span in sorted(batches, key=lambda span: span.started_ns)]


def draw_tree(
    span: CollectedSpan,
    spans: Sequence[CollectedSpan],
    letters: dict[str, str],
    *,
    origin_ns: int,
    lead: str,
    below: str,
) -> Iterator[str]:
    """Draw a span and all below it.

    Args:
        lead: Lines of the tree in front of the span's name.
        below: Lines of the tree in front of the spans below it.
    """
    links = "".join(f"-> {letters[link]}" for link in span.links if link in letters)
    yield draw_span(span, lead, origin_ns=origin_ns, note=links)
    found = [one for one in spans if one.parent_id == span.span_id]
    children = sorted(found, key=lambda one: (one.started_ns, one.ended_ns))
    for child in children:
        is_last = child is children[-1]
        yield from draw_tree(
            child,
            spans,
            letters,
            origin_ns=origin_ns,
            lead=below + ("└─ " if is_last else "├─ "),
            below=below + ("   " if is_last else "│  "),
        )


def draw_span(span: CollectedSpan, lead: str, *, origin_ns: int, note: str) -> str:
    """Draw one span: name, link, start, duration, attributes."""
    start, duration = (span.started_ns - origin_ns) / MS, (span.ended_ns - span.started_ns) / MS
    shown = [
        f"{name.removeprefix('labelyard.')}={span.attributes[name]}"
        for name in SHOWN
        if name in span.attributes
    ]
    name = f"{lead}{span.name}"
    return f"{name:<{NAME_COLUMNS}}  {note:<6}{start:>9.1f}{duration:>8.1f}  {' '.join(shown)}".rstrip()


def run_job(folder: Path, collector: Collector) -> str:
    """Run a worker and two jobs, and return the trace id of the second: the first warms it up."""
    provider = TracerProvider(resource=Resource({"service.name": "shop"}))
    exporter = OTLPSpanExporter(endpoint=f"{collector.url}/v1/traces")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    with running_service(folder) as service:
        worker = service.worker(variables=variables, max_batch_size="2")
        with worker.start(within_s=READY_WITHIN_S), service.client() as client:
            job_id = ""
            for turn in ("warm-up", "drawn"):
                uris = [
                    service.pictures.put(f"{turn}-{number}.jpg", pictures.jpeg() + turn.encode())
                    for number in range(3)
                ]
                deliver = Deliver(object_uri=f"s3://results/{turn}.json")
                job_id = client.classify(uris, LABELS, timeout_s=60, deliver=deliver).job_id
            wait_until(lambda: client.status(job_id).undelivered == ())
    made = [
        span
        for span in collector.named("labelyard.submit")
        if span.attributes["messaging.message.id"] == job_id
    ]
    return made[0].trace_id


def main() -> None:
    """Print the drawing of a new run."""
    with tempfile.TemporaryDirectory() as folder, running_collector() as collector:
        trace_id = run_job(Path(folder), collector)
        spans = collector.of_trace(trace_id)
        links = {link for span in spans for link in span.links}
        batches = [batch for batch in collector.named(BATCH) if batch.span_id in links]
        print(draw([*spans, *batches]))  # noqa: T201 - what it is for


if __name__ == "__main__":
    main()
