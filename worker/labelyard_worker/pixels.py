"""Types that the intake and the model exchange: pixel spec, limits, file versions, pixels."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Literal, Self

if TYPE_CHECKING:
    from labelyard_worker.settings import WorkerSettings  # pydantic-settings: not in children


# Interactive images go before bulk ones, in the intake and in the model's batches.
Resize = Literal["shortest_edge", "both_edges", "fit", "exact", "patches", "none"]

# Part of the identity of a cached image embedding: raise it when pixels change.
PREPROCESSING_VERSION = 3
MAX_EDGE_PX: Final = 2**31
MAX_FACT_CHARS: Final = 1024
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class PixelSpec:
    """Steps of a checkpoint's image processor before it rescales and normalises.

    Attributes:
        resize: ``shortest_edge``; ``both_edges`` (the shortest, unless the longest
            gets too long); ``fit`` (inside height x width, aspect kept); ``exact``
            (height x width, aspect lost); ``patches`` (NaFlex: as many whole patches
            as fit, aspect nearly kept); ``none``.
        shortest_edge: Pixels, for ``shortest_edge`` and ``both_edges``.
        longest_edge: Pixels, for ``both_edges``.
        height: Pixels, for ``exact`` and ``fit``.
        width: Pixels, for ``exact`` and ``fit``.
        resample: Pillow's number of the filter.
        crop: Height and width cut from the middle after resizing; what lies outside
            the picture is black.
        patch_size: Pixels, for ``patches``.
        max_num_patches: Patches of one picture, for ``patches``.
        composes_colour_key: Whether the processor converts to RGB itself, and so composes
            pixels of a picture's one transparent colour on white.
    """

    resize: Resize
    shortest_edge: int = 0
    longest_edge: int = 0
    height: int = 0
    width: int = 0
    resample: int = 3
    crop: tuple[int, int] | None = None
    patch_size: int = 0
    max_num_patches: int = 0
    composes_colour_key: bool = True

    @property
    def output_size(self) -> tuple[int, int] | None:
        """Height and width of every picture, or ``None`` where they differ (``patches``)."""
        if self.crop is not None:
            return self.crop
        return (self.height, self.width) if self.resize == "exact" else None

    @property
    def max_bytes(self) -> int:
        """Most bytes that one picture's pixels take."""
        if self.output_size is None:
            return 3 * self.patch_size**2 * self.max_num_patches
        height, width = self.output_size
        return 3 * height * width


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """Facts about an image that its result reports beside its scores.

    They travel whole: from the child that reads the image, through the image cache, to the
    result. A new one needs a field here, a value in ``intake/decode.py``, and a field of
    ``labelyard.messages.ImageResult``; give it a default, or cached images are fetched again.

    Attributes:
        sha256: Digest of the bytes as read, lower-case hex.
        width: Pixels, after EXIF orientation.
        height: Pixels, after EXIF orientation.
        etag: ETag of the object without its quotes, or ``None``.
    """

    sha256: str
    width: int
    height: int
    etag: str | None = None

    @classmethod
    def parse(cls, values: object) -> Self:
        """Check facts that a child process sent, or that a cache held.

        Raises:
            ValueError: A fact is missing or malformed; the text names it.
        """
        if not isinstance(values, Mapping):
            raise ValueError("the facts of an image are not an object")  # noqa: TRY004
        facts = {each.name: values.get(each.name, each.default) for each in _FACTS}
        for each in _FACTS:
            if not _is_sound(facts[each.name], each.type):
                raise ValueError(f"{each.name} is missing, malformed or too large")
        found = cls(**facts)
        if not (_SHA256.fullmatch(found.sha256) and found.width and found.height):
            raise ValueError("not the SHA-256 or the size of an image")
        return found

    def to_fields(self) -> dict[str, Any]:
        """Return the facts by name, as JSON can write them."""
        return {each.name: getattr(self, each.name) for each in _FACTS}


_FACTS: Final = fields(ImageFacts)


def _is_sound(value: object, kind: Any) -> bool:
    """Return whether a fact has its field's type and a plausible size."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        return False
    if isinstance(value, str):
        return len(value) <= MAX_FACT_CHARS
    return not isinstance(value, int) or 0 <= value <= MAX_EDGE_PX


@dataclass(frozen=True, slots=True)
class Pixels:
    """Decoded image, ready to be normalised.

    Attributes:
        data: uint8, rows of RGB, ``height * width * 3`` bytes.
        height: Rows, after resize and crop.
        width: Columns, after resize and crop.
        facts: Facts about the image as sent.
        stamp: Size, time of change and version that the source named with it.
    """

    data: bytes
    height: int
    width: int
    facts: ImageFacts
    stamp: str = ""


@dataclass(frozen=True, slots=True)
class FileVersion:
    """One version of a file, as its source names it.

    Contents of equal MD5, and so of equal ETag, can be made at will: an ETag is believed
    only together with the stamp.

    Attributes:
        etag: ETag without its quotes.
        stamp: Size in bytes, time of change and version, see :func:`stamp_of`.
    """

    etag: str
    stamp: str


def stamp_of(*, size_bytes: int, changed_at: str, version_id: str | None) -> str:
    """Describe a file's version besides its ETag; empty without a time."""
    return f"{size_bytes} {changed_at} {version_id or ''}" if changed_at else ""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits on the cost of a picture, and how faithfully it is read.

    Attributes:
        max_bytes: Largest file.
        max_pixels: Largest width x height.
        max_memory_bytes: Address space that decoding may take beyond the child's own.
        decode: ``draft`` or ``exact``; a checkpoint decides what ``auto`` means.
        transparency: ``white`` or ``drop``, as in the settings.
    """

    max_bytes: int = 50_000_000
    max_pixels: int = 100_000_000
    max_memory_bytes: int = 2048 * 1024 * 1024
    decode: Literal["draft", "exact"] = "draft"
    transparency: Literal["white", "drop"] = "white"

    @classmethod
    def of(cls, settings: "WorkerSettings") -> Self:
        """Read the limits from the worker's settings."""
        return cls(
            max_bytes=settings.max_image_bytes,
            max_pixels=settings.max_image_pixels,
            max_memory_bytes=settings.max_child_memory_bytes,
            decode="draft" if settings.decode == "draft" else "exact",
            transparency=settings.transparency,
        )

    @property
    def follows_pipeline(self) -> bool:
        """Return whether pixels must equal those of transformers' pipeline."""
        return self.decode == "exact" and self.transparency == "drop"


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The file still has the ETag that is known already, so it was not sent.

    Attributes:
        etag: That ETag, without quotes.
    """

    etag: str
