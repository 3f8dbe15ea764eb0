"""Errors of the service: time mends them, or its operator."""

from labelyard.errors.root import LabelyardError


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
