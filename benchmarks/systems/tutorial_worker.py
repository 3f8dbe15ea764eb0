"""The worker of every tutorial: a Celery task around the pipeline, one image at a time."""

from typing import Any

from benchmarks.systems.pipeline import TOP_K, make_app, open_picture, pipeline

app = make_app()


@app.task(name="benchmarks.classify")  # type: ignore[untyped-decorator]
def classify(key: str, candidate_labels: list[str]) -> list[dict[str, Any]]:
    """Score one picture."""
    scores: list[dict[str, Any]] = pipeline()(open_picture(key), candidate_labels=candidate_labels)
    return scores[:TOP_K]
