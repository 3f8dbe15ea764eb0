"""Errors of one image of a job; its neighbours go on."""

from labelyard.errors.requests import RequestError


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
