"""A Celery task that does nothing: what Celery alone costs on the same servers."""

from typing import Any

from benchmarks.systems.pipeline import TOP_K, make_app

app = make_app()


@app.task(name="benchmarks.classify")  # type: ignore[untyped-decorator]
def classify(key: str, candidate_labels: list[str]) -> list[dict[str, Any]]:
    """Answer at once."""
    del key
    return [{"label": label, "score": 0.2} for label in candidate_labels[:TOP_K]]
