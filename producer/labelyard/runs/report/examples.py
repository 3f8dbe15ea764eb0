"""One picture that a report shows: the part of its result line that the page needs."""

from dataclasses import dataclass
from typing import Self

from labelyard.runs.lines import ResultLine

LABELS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class PictureExample:
    """One picture of a run as an example.

    Attributes:
        score: Score of the label that the picture is an example of; ``None`` if of none.
        best: The best labels with their scores, best first.
        identity: Digest of the content, or the address if there is no digest.
    """

    line: int
    custom_id: str
    uri: str
    score: float | None
    best: tuple[tuple[str, float], ...]
    is_abstained: bool
    identity: str
    width: int
    height: int

    @classmethod
    def of(cls, line: ResultLine, score: float | None = None) -> Self:
        """Take from a result line what the page shows."""
        return cls(
            line=line.line,
            custom_id=line.custom_id,
            uri=line.uri,
            score=score,
            best=tuple((one.name, one.score) for one in line.labels[:LABELS_SHOWN]),
            is_abstained=line.abstained,
            identity=line.sha256 or line.uri,
            width=line.width or 0,
            height=line.height or 0,
        )
