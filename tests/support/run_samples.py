"""Sample runs, for tests of their records."""

from typing import Any

from labelyard.label_sets import as_label_set
from labelyard.messages import new_job_id
from labelyard.runs.request import RunRequest


def sample_run(**changes: Any) -> RunRequest:
    """Make a run over a manifest."""
    return RunRequest.model_validate(
        {
            "run_id": new_job_id(),
            "source": "s3://pictures/manifest.jsonl",
            "source_format": "jsonl",
            "label_set": as_label_set(["a cat", "a dog"]),
            "out": "s3://results/run/",
            **changes,
        }
    )
