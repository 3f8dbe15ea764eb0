"""Test support for users: clients without servers, sample jobs and results."""

from labelyard.testing.fakes import AsyncFakeClient, FakeClient
from labelyard.testing.samples import (
    SAMPLE_LABELS,
    SAMPLE_MODEL,
    SAMPLE_URIS,
    Answer,
    answer_by_scores,
    fail_image,
    fail_job,
    sample_job,
    sample_result,
    score_image,
)

__all__ = [
    "SAMPLE_LABELS",
    "SAMPLE_MODEL",
    "SAMPLE_URIS",
    "Answer",
    "AsyncFakeClient",
    "FakeClient",
    "answer_by_scores",
    "fail_image",
    "fail_job",
    "sample_job",
    "sample_result",
    "score_image",
]
