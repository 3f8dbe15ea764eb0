"""End of a run as its webhook gets it."""

from pydantic import Field

from labelyard.messages import Failure
from labelyard.messages.models import Report
from labelyard.runs.summaries import ImageCounts


class RunEnd(Report):
    """End of a run: the ``data`` of its webhook.

    Attributes:
        run_id: The run.
        state: State in which it ended: ``succeeded``, ``partial``, ``failed``, ``cancelled`` or
            ``expired``.
        tenant: On whose behalf it was started.
        out: Prefix of its files; ``summary.json`` is there unless the run could not be planned.
        images: Planned images; none are counted if the summary could not be written.
        bad_lines: Manifest lines that name no image.
        errors: How often each code occurred, those of bad lines included; the most frequent 50.
        seconds: From the start of the run to its end.
        error: Why it failed.
    """

    run_id: str
    state: str
    tenant: str
    out: str
    images: ImageCounts = ImageCounts()
    bad_lines: int = 0
    errors: dict[str, int] = Field(default_factory=dict)
    seconds: float = 0.0
    error: Failure | None = None
