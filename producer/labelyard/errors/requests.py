"""Errors of a request that its caller must change."""

from labelyard.errors.root import LabelyardError


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
