"""Errors by which a delivered message goes back to the broker."""

from labelyard.errors import LabelyardError


class MessageReturnedError(LabelyardError):
    """The message must go back to the broker: this worker cannot finish the job.

    Attributes:
        job_id: The job.
        returned_by: ``worker:start`` of the attempt that ended without the ledger's knowledge,
            which the message must carry: else the attempt counts as a death. Empty if the
            ledger knows.
    """

    code = "message_returned"
    is_retryable = True

    def __init__(self, job_id: str, returned_by: str = "") -> None:
        super().__init__(job_id, returned_by)
        self.job_id = job_id
        self.returned_by = returned_by


class LedgerAwayError(MessageReturnedError):
    """The worker shuts down and cannot wait until the ledger is back."""
