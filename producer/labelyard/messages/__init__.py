"""Messages that cross the broker, and nothing else.

A field is never renamed and never changes its meaning. A new field is optional,
and workers are upgraded before the producers that send it, because a worker
refuses a field that it does not know: a misspelt one must not pass in silence.
A change that an older worker would misread gets a new ``version``; workers read
the last two. Readers of results ignore fields that they do not know.
"""

from labelyard.fields import MAX_INLINE_LABELS
from labelyard.messages.explanation import LabelExplanation, Window
from labelyard.messages.job import (
    MAX_IMAGES,
    MAX_INLINE_PROMPTS,
    MAX_REGISTERED_PROMPTS,
    MAX_SCORED_LABELS,
    VERSION,
    Deliver,
    ImageRef,
    Job,
    job_id_for,
    new_job_id,
    parse_job,
)
from labelyard.messages.labels import DEFAULT_TEMPLATE, Label, LabelSet, Parent, Scoring
from labelyard.messages.learned import (
    Certified,
    CertifiedLabel,
    Examples,
    FitLimit,
    Learned,
    TitleWeights,
)
from labelyard.messages.models import Message, Report, refusal_of
from labelyard.messages.result import (
    AbstainedBecause,
    Failure,
    ImageResult,
    ImageVector,
    ModelInfo,
    Result,
    ScoredLabel,
    ScoredNode,
    Status,
    Timing,
    TitleFinding,
    status_of,
)

__all__ = [
    "DEFAULT_TEMPLATE",
    "MAX_IMAGES",
    "MAX_INLINE_LABELS",
    "MAX_INLINE_PROMPTS",
    "MAX_REGISTERED_PROMPTS",
    "MAX_SCORED_LABELS",
    "VERSION",
    "AbstainedBecause",
    "Certified",
    "CertifiedLabel",
    "Deliver",
    "Examples",
    "Failure",
    "FitLimit",
    "ImageRef",
    "ImageResult",
    "ImageVector",
    "Job",
    "Label",
    "LabelExplanation",
    "LabelSet",
    "Learned",
    "Message",
    "ModelInfo",
    "Parent",
    "Report",
    "Result",
    "ScoredLabel",
    "ScoredNode",
    "Scoring",
    "Status",
    "Timing",
    "TitleFinding",
    "TitleWeights",
    "Window",
    "job_id_for",
    "new_job_id",
    "parse_job",
    "refusal_of",
    "status_of",
]
