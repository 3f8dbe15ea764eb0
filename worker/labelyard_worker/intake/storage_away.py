"""Error of a storage that is away as a whole; a module of its own, so that readers start fast."""

from labelyard.errors import StorageUnavailableError


class StorageAwayError(StorageUnavailableError):
    """A whole bucket or host cannot be used now: its jobs wait, no image is at fault.

    Jobs that fail with it are retried later, without an attempt being counted, until
    ``LABELYARD_STORAGE_WAIT_S`` is over.
    """
