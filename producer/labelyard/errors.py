"""Every error of labelyard, in a tree whose branches name the person who must act.

LabelyardError
├── RequestError                 the caller; never retried
│   ├── InvalidMessageError      invalid_message
│   ├── UnknownLabelSetError     unknown_label_set
│   ├── LabelSetOfAnotherCheckpointError   label_set_of_another_checkpoint
│   ├── LabelSetExamplesError    label_set_examples
│   ├── RunFilesError            run_files
│   └── ImageError               one image; its neighbours go on
│       ├── UnsupportedUriError        unsupported_uri
│       ├── ImageNotFoundError         image_not_found
│       ├── ImageAccessDeniedError     image_access_denied
│       ├── ImageTooLargeError         image_too_large
│       ├── ImageUndecodableError      image_undecodable
│       ├── ImageCrashedDecoderError   image_crashed_decoder
│       ├── ImageTimedOutError         image_timed_out
│       ├── ImageNotEmbeddedError      image_not_embedded
│       ├── ImageKilledWorkerError     image_killed_worker
│       └── ScoresNotFiniteError       scores_not_finite
├── TransientError               time; retried with backoff and jitter
│   ├── StorageUnavailableError  storage_unavailable
│   ├── BatcherFullError         batcher_full
│   └── JobTimedOutError         inference_timeout
├── WorkerError                  the operator; the job goes back, the worker stops
│   ├── ModelLoadError           model_load
│   └── DeviceFailedError        device_failed
├── ServiceConfigError           service_config
├── WebhookError                 the receiver of a webhook; the request is not to be trusted
│   ├── WebhookHeadersError      webhook_headers
│   ├── WebhookSignatureError    webhook_signature
│   ├── WebhookTimestampError    webhook_timestamp
│   └── WebhookBodyError         webhook_body
└── ProducerError                whoever submits and waits
    ├── BrokerUnavailableError   broker_unavailable
    ├── LedgerUnavailableError   ledger_unavailable
    ├── QueueFullError           queue_full
    ├── TenantQuotaError         tenant_quota_exceeded
    ├── IdempotencyConflictError idempotency_conflict
    ├── LabelSetWorseError       label_set_worse
    ├── ResultTimeoutError       result_timeout
    ├── ResultUnreadableError    result_unreadable
    ├── JobNotFoundError         job_not_found
    ├── RunNotFoundError         run_not_found
    ├── RunStateError            run_state
    ├── RunTimeoutError          run_timeout
    ├── JobCancelledError        job_cancelled
    ├── JobExpiredError          job_expired
    ├── JobDeadLetteredError     job_dead_lettered
    ├── EventGroupNotFoundError  event_group_not_found
    └── AliasConflictError       alias_conflict

A ServiceConfigError concerns the operator of a worker or of a producer; it is never retried.
A WebhookError never leaves the receiver that called ``labelyard.webhooks.verify``.

A code is never renamed and never changes its meaning. Errors cross the broker as
``cls(*args)``, so each passes exactly what it took to ``super().__init__`` and
builds its sentence in ``__str__``.
"""

from collections.abc import Iterable, Iterator
from typing import ClassVar


class LabelyardError(Exception):
    """Base class of every error that labelyard raises.

    Attributes:
        code: Stable name of the error, for programs.
        is_retryable: Whether the same request may succeed later.
    """

    code: ClassVar[str] = "labelyard_error"
    is_retryable: ClassVar[bool] = False

    def __str__(self) -> str:
        """Return the code, then the error's arguments."""
        return ": ".join([self.code, *(str(arg) for arg in self.args if arg)])


class RequestError(LabelyardError):
    """The caller must change the request; a retry cannot help."""

    code = "request_error"


class InvalidMessageError(RequestError):
    """The message does not follow the contract in docs/message-contract.md."""

    code = "invalid_message"


class UnknownLabelSetError(RequestError):
    """No label set is registered under this reference: register it first."""

    code = "unknown_label_set"


class LabelSetOfAnotherCheckpointError(RequestError):
    """The label set learned from pictures with another checkpoint than the worker's."""

    code = "label_set_of_another_checkpoint"


class LabelSetExamplesError(RequestError):
    """The object with a label set's examples is gone, is another one, or may not be read."""

    code = "label_set_examples"


class RunFilesError(RequestError):
    """The run's output prefix is not permitted, or files that it needs are gone."""

    code = "run_files"


class ImageError(RequestError):
    """The error concerns one image; the job's other images have their scores.

    Attributes:
        uri: Where the image was read from.
        reason: What is wrong with it, for a person.
    """

    code = "image_error"

    def __init__(self, uri: str, reason: str = "") -> None:
        super().__init__(uri, reason)
        self.uri = uri
        self.reason = reason


class UnsupportedUriError(ImageError):
    """The worker does not read from this kind of address, or was not allowed to."""

    code = "unsupported_uri"


class ImageNotFoundError(ImageError):
    """There is no image at this URI."""

    code = "image_not_found"


class ImageAccessDeniedError(ImageError):
    """Storage refused the worker's credentials, or hides a missing key behind a refusal."""

    code = "image_access_denied"


class ImageTooLargeError(ImageError):
    """The image exceeds a limit on bytes, pixels, frames or the decoder's memory."""

    code = "image_too_large"


class ImageUndecodableError(ImageError):
    """The bytes are not a picture that can be decoded."""

    code = "image_undecodable"


class ImageCrashedDecoderError(ImageError):
    """The decoder's process died on this image."""

    code = "image_crashed_decoder"


class ImageTimedOutError(ImageError):
    """Fetching and decoding took longer than the limit for one image."""

    code = "image_timed_out"


class ImageNotEmbeddedError(ImageError):
    """A re-scoring job names an image that is not known, or is another one: classify it first."""

    code = "image_not_embedded"


class ImageKilledWorkerError(ImageError):
    """The worker died each time that it scored the image alone."""

    code = "image_killed_worker"


class ScoresNotFiniteError(ImageError):
    """The model's numbers for the image are not finite, so it has no scores."""

    code = "scores_not_finite"


class TransientError(LabelyardError):
    """A temporary failure; labelyard retries by itself before it reports one."""

    code = "transient_error"
    is_retryable = True


class StorageUnavailableError(TransientError):
    """Object storage gave no usable answer."""

    code = "storage_unavailable"


class BatcherFullError(TransientError):
    """More images wait for the model than the worker may hold."""

    code = "batcher_full"


class JobTimedOutError(TransientError):
    """An attempt of the job took longer than LABELYARD_JOB_TIMEOUT_S."""

    code = "inference_timeout"  # of contract 1, older than the class's name


class WorkerError(LabelyardError):
    """The operator must act: the job goes back to the queue and the worker stops."""

    code = "worker_error"
    is_retryable = True


class ModelLoadError(WorkerError):
    """The checkpoint cannot be loaded or is of a kind that cannot be served."""

    code = "model_load"


class DeviceFailedError(WorkerError):
    """The accelerator is lost; only a new process can use it again."""

    code = "device_failed"


class ServiceConfigError(LabelyardError):
    """A setting is wrong; the message names it, and a value that works."""

    code = "service_config"


class WebhookError(LabelyardError):
    """A webhook did not pass ``labelyard.webhooks.verify``: answer 400, and do not use it."""

    code = "webhook_error"


class WebhookHeadersError(WebhookError):
    """A header of the webhook's signature is missing or malformed."""

    code = "webhook_headers"


class WebhookSignatureError(WebhookError):
    """No signature of the webhook was made with a secret that the receiver knows."""

    code = "webhook_signature"


class WebhookTimestampError(WebhookError):
    """The webhook was signed too long ago, or in the future: a repetition, or a wrong clock."""

    code = "webhook_timestamp"


class WebhookBodyError(WebhookError):
    """The webhook is signed, and its body is not what a worker sends."""

    code = "webhook_body"


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


def all_errors(root: type[LabelyardError] = LabelyardError) -> Iterator[type[LabelyardError]]:
    """Yield *root* and every class below it, parents first."""
    yield root
    for child in root.__subclasses__():
        yield from all_errors(child)
