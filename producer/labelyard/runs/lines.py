"""Lines of a run's files: those of its plan, of its results, and of its errors.

Each model is one line of JSON. A field is never removed and never changes its meaning; a newer
version may add fields, which readers ignore.
"""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Discriminator, Field, Tag, TypeAdapter

from labelyard.errors import LabelyardError
from labelyard.fields import MAX_LABELS, TEXT_PATTERN, LabelSetDigest, LabelSetRef, Name, Title
from labelyard.messages import (
    AbstainedBecause,
    Failure,
    ImageResult,
    Report,
    ScoredLabel,
    ScoredNode,
    TitleFinding,
)
from labelyard.runs.line_faults import MAX_CUSTOM_ID_CHARS, MAX_URI_CHARS

CustomId = Annotated[str, Field(min_length=1, max_length=MAX_CUSTOM_ID_CHARS, pattern=TEXT_PATTERN)]
LineNumber = Annotated[int, Field(ge=1)]
LineStatus = Literal["succeeded", "failed"]


class PlannedLine(Report):
    """One image of a run, as its plan names it.

    Attributes:
        line: Number of the manifest's line, from 1, the header of a CSV file included; of the
            row of a Parquet file, or of the object of a listing.
        custom_id: The manifest's own name for the image, unique in the run; the key in a listing.
        uri: Where the worker reads the image.
        labels: Labels of this image alone; ``None`` for those of the run.
        label_set: Registered label set of this image alone; ``None`` for that of the run.
        columns: Other columns of the manifest that the result carries.
        text: Text beside the image, as in a job; left out if there is none.
    """

    line: LineNumber
    custom_id: CustomId
    uri: str = Field(min_length=1, max_length=MAX_URI_CHARS)
    labels: tuple[Name, ...] | None = Field(default=None, min_length=1, max_length=MAX_LABELS)
    label_set: LabelSetRef | None = None
    columns: dict[str, Any] = Field(default_factory=dict)
    text: Title | None = Field(default=None, exclude_if=lambda text: text is None)


class ErrorLine(Report):
    """One error of a run: an image without a result, or a manifest line that names no image.

    Attributes:
        line: As in the plan.
        custom_id: ``None`` if the line has none that can be read.
        uri: ``None`` if the line has none that can be read.
        code: An error code of docs/errors.md, or a :class:`LineFault`.
        message: The same for a person.
        is_retryable: Whether the same line may succeed later.
    """

    line: LineNumber
    custom_id: str | None = None
    uri: str | None = None
    code: str
    message: str
    is_retryable: bool = False


class LineError(Report):
    """The error inside a result line.

    Attributes:
        code: An error code of docs/errors.md.
        message: The same for a person.
        is_retryable: Whether the same line may succeed later.
    """

    code: str
    message: str
    is_retryable: bool = False

    @classmethod
    def of(cls, error: LabelyardError | Failure) -> Self:
        """Describe *error* for a reader of results."""
        message = error.message if isinstance(error, Failure) else str(error)
        return cls(code=error.code, message=message, is_retryable=error.is_retryable)


class ResultLine(Report):
    """Result of one planned image; a failed image has one, too.

    Attributes:
        line: As in the plan.
        custom_id: As in the plan.
        uri: As in the plan.
        status: ``failed`` if there is an ``error``.
        top_label: Name of the best label; ``None`` if the image failed.
        top_score: Score of the best label.
        matched: Names of the labels that reached their threshold, best first.
        abstained: Whether the set said "none of these".
        labels: The best ``top_k`` labels, best first.
        label_set: Digest of the label set that the image was scored against.
        sha256: Digest of the file as read, lower-case hex.
        width: Pixels, after EXIF orientation.
        height: Pixels, after EXIF orientation.
        size_bytes: Size of the file; ``None`` if it is not known.
        error: Why there are no labels.
        columns: Other columns of the manifest.
        fit: As in the result of an image, as all that follow.
        abstained_because: Why nothing is matched; ``None`` if a label is.
        parents: The best parents of the hierarchy, best first; none without one.
        node: The deepest node that passes its threshold, or ``None``.
        title: Comparison with the text beside the image; left out if there is none.
    """

    line: LineNumber
    custom_id: CustomId
    uri: str
    status: LineStatus
    top_label: str | None = None
    top_score: float | None = Field(default=None, allow_inf_nan=False)
    matched: tuple[str, ...] = ()
    abstained: bool = False
    labels: tuple[ScoredLabel, ...] = ()
    label_set: LabelSetDigest | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    size_bytes: int | None = None
    error: LineError | None = None
    columns: dict[str, Any] = Field(default_factory=dict)
    fit: float | None = Field(default=None, allow_inf_nan=False)
    abstained_because: AbstainedBecause | None = None
    parents: tuple[ScoredNode, ...] = ()
    node: ScoredNode | None = None
    title: TitleFinding | None = Field(default=None, exclude_if=lambda title: title is None)

    @classmethod
    def of(
        cls,
        planned: PlannedLine,
        image: ImageResult,
        *,
        label_set: str | None = None,
        size_bytes: int | None = None,
    ) -> Self:
        """Make the result line of a planned image from the image's result.

        Args:
            label_set: Digest of the label set.
            size_bytes: Size of the file, if it is known.
        """
        best = image.labels[0] if image.labels else None
        return cls(
            line=planned.line,
            custom_id=planned.custom_id,
            uri=planned.uri,
            status="succeeded" if image.error is None else "failed",
            top_label=best.name if best else None,
            top_score=best.score if best else None,
            matched=image.matched,
            abstained=image.abstained,
            labels=image.labels,
            label_set=label_set,
            sha256=image.sha256,
            width=image.width,
            height=image.height,
            size_bytes=size_bytes,
            error=None if image.error is None else LineError.of(image.error),
            columns=planned.columns,
            fit=image.fit,
            abstained_because=image.abstained_because,
            parents=image.parents,
            node=image.node,
            title=image.title,
        )

    def to_error_line(self) -> ErrorLine | None:
        """Return the line of the errors' file for a failed image, else ``None``."""
        if self.error is None:
            return None
        return ErrorLine(
            line=self.line,
            custom_id=self.custom_id,
            uri=self.uri,
            code=self.error.code,
            message=self.error.message,
            is_retryable=self.error.is_retryable,
        )


def _kind_of(line: Any) -> str:
    return "error" if isinstance(line, ErrorLine) or (type(line) is dict and "code" in line) else ""


#: A line of a plan: an image, or a manifest line that names none.
PlanLine = Annotated[
    Annotated[PlannedLine, Tag("")] | Annotated[ErrorLine, Tag("error")],
    Discriminator(_kind_of),
]
_PLAN_LINE: Final[TypeAdapter[PlannedLine | ErrorLine]] = TypeAdapter(PlanLine)


def parse_plan(body: bytes) -> list[PlannedLine | ErrorLine]:
    """Read the lines of a plan's object, as a planner wrote them.

    Args:
        body: JSON, one line each, not compressed.

    Raises:
        pydantic.ValidationError: A line is not one of a plan.
    """
    return [_PLAN_LINE.validate_json(line) for line in body.splitlines() if line]
