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

from labelyard.errors.images import (
    ImageAccessDeniedError,
    ImageCrashedDecoderError,
    ImageError,
    ImageKilledWorkerError,
    ImageNotEmbeddedError,
    ImageNotFoundError,
    ImageTimedOutError,
    ImageTooLargeError,
    ImageUndecodableError,
    ScoresNotFiniteError,
    UnsupportedUriError,
)
from labelyard.errors.producer import (
    AliasConflictError,
    BrokerUnavailableError,
    EventGroupNotFoundError,
    IdempotencyConflictError,
    JobCancelledError,
    JobDeadLetteredError,
    JobExpiredError,
    JobNotFoundError,
    LabelSetWorseError,
    LedgerUnavailableError,
    ProducerError,
    QueueFullError,
    ResultTimeoutError,
    ResultUnreadableError,
    RunNotFoundError,
    RunStateError,
    RunTimeoutError,
    TenantQuotaError,
)
from labelyard.errors.requests import (
    InvalidMessageError,
    LabelSetExamplesError,
    LabelSetOfAnotherCheckpointError,
    RequestError,
    RunFilesError,
    UnknownLabelSetError,
)
from labelyard.errors.root import (
    LabelyardError,
    all_errors,
)
from labelyard.errors.service import (
    BatcherFullError,
    DeviceFailedError,
    JobTimedOutError,
    ModelLoadError,
    ServiceConfigError,
    StorageUnavailableError,
    TransientError,
    WorkerError,
)
from labelyard.errors.webhooks import (
    WebhookBodyError,
    WebhookError,
    WebhookHeadersError,
    WebhookSignatureError,
    WebhookTimestampError,
)

__all__ = [
    "AliasConflictError",
    "BatcherFullError",
    "BrokerUnavailableError",
    "DeviceFailedError",
    "EventGroupNotFoundError",
    "IdempotencyConflictError",
    "ImageAccessDeniedError",
    "ImageCrashedDecoderError",
    "ImageError",
    "ImageKilledWorkerError",
    "ImageNotEmbeddedError",
    "ImageNotFoundError",
    "ImageTimedOutError",
    "ImageTooLargeError",
    "ImageUndecodableError",
    "InvalidMessageError",
    "JobCancelledError",
    "JobDeadLetteredError",
    "JobExpiredError",
    "JobNotFoundError",
    "JobTimedOutError",
    "LabelSetExamplesError",
    "LabelSetOfAnotherCheckpointError",
    "LabelSetWorseError",
    "LabelyardError",
    "LedgerUnavailableError",
    "ModelLoadError",
    "ProducerError",
    "QueueFullError",
    "RequestError",
    "ResultTimeoutError",
    "ResultUnreadableError",
    "RunFilesError",
    "RunNotFoundError",
    "RunStateError",
    "RunTimeoutError",
    "ScoresNotFiniteError",
    "ServiceConfigError",
    "StorageUnavailableError",
    "TenantQuotaError",
    "TransientError",
    "UnknownLabelSetError",
    "UnsupportedUriError",
    "WebhookBodyError",
    "WebhookError",
    "WebhookHeadersError",
    "WebhookSignatureError",
    "WebhookTimestampError",
    "WorkerError",
    "all_errors",
]

# Celery writes the module of an error into the result. It is this one in every version, whatever
# file a class is in.
for _error in all_errors():
    _error.__module__ = __name__
del _error
