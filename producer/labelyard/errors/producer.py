"""Errors of a program that submits jobs and waits for them."""

from collections.abc import Iterable

from labelyard.errors.root import LabelyardError


class ProducerError(LabelyardError):
    """Raised to the caller that submits a job or waits for it."""

    code = "producer_error"


class BrokerUnavailableError(ProducerError):
    """The broker took no message; the job is in the ledger and will be sent again."""

    code = "broker_unavailable"
    is_retryable = True


class LedgerUnavailableError(ProducerError):
    """The ledger did not answer: the requested change may have happened, or not.

    After a submit the job may have been accepted. Submitting the same prepared job again is
    safe: it is not run twice.

    Attributes:
        reason: What went wrong, for a person.
        job_ids: Ids of the jobs that may have been accepted; empty if the call was not a submit.
    """

    code = "ledger_unavailable"
    is_retryable = True

    def __init__(self, reason: str = "", job_ids: Iterable[str] = ()) -> None:
        self.reason = reason
        self.job_ids: tuple[str, ...] = tuple(job_ids)
        super().__init__(reason, self.job_ids)

    def __str__(self) -> str:
        """Return the code, the reason, and the jobs that are affected."""
        text = f"{self.code}: {self.reason}" if self.reason else self.code
        if not self.job_ids:
            return text
        others = len(self.job_ids) - 1
        rest = f" and {others} more" if others else ""
        return f"{text} (job {self.job_id}{rest})"

    @property
    def job_id(self) -> str:
        """Id of the first job that may have been accepted; empty if there is none."""
        return self.job_ids[0] if self.job_ids else ""


class QueueFullError(ProducerError):
    """As many images wait as LABELYARD_MAX_QUEUED_IMAGES allows: submit later."""

    code = "queue_full"
    is_retryable = True


class TenantQuotaError(ProducerError):
    """A quota of the tenant is used up, and its job was not accepted: submit it later.

    Attributes:
        reason: Which quota, its limit and its use, for a person.
        quota: ``max_open_images``, ``images_per_s`` or ``prompts_per_s``.
        limit: Value of the quota.
        retry_after_s: Seconds after which the job may be accepted. For ``max_open_images`` that
            depends on the workers: it is the pause after which asking again is cheap.
    """

    code = "tenant_quota_exceeded"
    is_retryable = True

    def __init__(
        self, reason: str = "", quota: str = "", limit: float = 0.0, retry_after_s: float = 0.0
    ) -> None:
        super().__init__(reason, quota, limit, retry_after_s)
        self.reason = reason
        self.quota = quota
        self.limit = limit
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        """Return the code, the reason, and when to try again."""
        text = f"{self.code}: {self.reason}" if self.reason else self.code
        return f"{text}; retry after {self.retry_after_s:.3g} s" if self.quota else text


class IdempotencyConflictError(ProducerError):
    """Another job, or another tenant's, has this id or idempotency key: choose another one."""

    code = "idempotency_conflict"


class LabelSetWorseError(ProducerError):
    """A new version of a label set would be worse on labelled pictures; it was not registered."""

    code = "label_set_worse"


class ResultTimeoutError(ProducerError):
    """The job was not finished in time; it goes on, and its result can be read later."""

    code = "result_timeout"
    is_retryable = True


class ResultUnreadableError(ProducerError):
    """The ledger's record of the job holds no result that can be read here."""

    code = "result_unreadable"


class JobNotFoundError(ProducerError):
    """The ledger knows no such job: the id is wrong, or its result has expired."""

    code = "job_not_found"


class RunNotFoundError(ProducerError):
    """The ledger knows no such run: the id is wrong, or its record has expired."""

    code = "run_not_found"


class RunStateError(ProducerError):
    """The run's state does not permit the step: a final run cannot be paused."""

    code = "run_state"


class RunTimeoutError(ProducerError):
    """The run has not ended in time; it goes on."""

    code = "run_timeout"
    is_retryable = True


class JobCancelledError(ProducerError):
    """The job was cancelled before it finished."""

    code = "job_cancelled"


class JobExpiredError(ProducerError):
    """The job's ``expires_at`` passed before it finished."""

    code = "job_expired"


class JobDeadLetteredError(ProducerError):
    """The job killed or hung its workers and was set aside: see ``labelyard dead show``."""

    code = "job_dead_lettered"


class EventGroupNotFoundError(ProducerError):
    """No group of consumers has this name: it was never made, or it was deleted."""

    code = "event_group_not_found"


class AliasConflictError(ProducerError):
    """The alias names another version than expected, or it names a version to be deleted."""

    code = "alias_conflict"
