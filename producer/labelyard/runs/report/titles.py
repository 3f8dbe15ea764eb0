"""Texts beside the pictures of a run: how many contradict them, and the clearest examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from labelyard.markup import Markup, foreign, join, tag
from labelyard.messages import TitleFinding
from labelyard.runs.lines import ResultLine
from labelyard.runs.report.examples import PictureExample
from labelyard.runs.report.picture_card import picture_grid
from labelyard.runs.report.samples import LowestItems
from labelyard.runs.report.wording import count, percent, plural

#: Agreement of a picture and a text one of which says nothing.
SILENT: Final = 0.5


@dataclass(frozen=True, slots=True)
class TitledExample:
    """A picture, and the text that speaks against it."""

    picture: PictureExample
    title: TitleFinding


class TitleTally:
    """Counts of pictures with a text that was compared with them.

    Attributes:
        compared: Pictures with such a text.
        disagreeing: Those of them that their text contradicts.
        worst: Those with the lowest agreement, contradicted or not.
    """

    __slots__ = ("compared", "disagreeing", "worst")

    def __init__(self, *, examples: int) -> None:
        """Start without pictures; keep up to *examples*."""
        self.compared: int = 0
        self.disagreeing: int = 0
        self.worst: LowestItems[TitledExample] = LowestItems(examples)

    def add(self, line: ResultLine, title: TitleFinding, *, priority: float) -> None:
        """Count a picture.

        Args:
            priority: Number of 0 to 1 that decides between equal agreements.
        """
        self.compared += 1
        self.disagreeing += not title.agrees
        rank = (title.agreement, priority)
        if title.agreement < SILENT and self.worst.accepts(rank):
            self.worst.offer(rank, line.custom_id, TitledExample(PictureExample.of(line), title))


def titles(
    tally: TitleTally, examples: Sequence[TitledExample], thumbnails: Mapping[str, str]
) -> Markup:
    """Draw how many texts contradict their pictures, and the pictures of the lowest agreement."""
    lead = agreement_lead(tally.disagreeing, tally.compared, has_examples=bool(examples))
    notes = [_note(one) for one in examples]
    pictures = [one.picture for one in examples]
    grid = picture_grid(pictures, thumbnails, notes=notes) if examples else None
    return join(tag("p", lead), grid)


def agreement_lead(disagreeing: int, compared: int, *, has_examples: bool) -> str:
    """Write how many texts contradict their pictures.

    Args:
        has_examples: Whether pictures that texts speak against are shown below.
    """
    part = f"{count(disagreeing)} of {plural(compared, 'text')} ({percent(disagreeing, compared)})"
    verb = "contradicts its picture" if disagreeing == 1 else "contradict their pictures"
    lead = f"{part} {verb}: the agreement is below 0.05."
    if not has_examples:
        return lead
    return (
        f"{lead} These have the lowest agreement: another thing was pictured, or the text misleads."
    )


def _note(one: TitledExample) -> Markup:
    """Write the label by the text, and that of the picture and the text together."""
    both = [", together ", foreign(one.picture.best[0][0], limit=60)] if one.picture.best else []
    return join(
        ["text: ", foreign(one.title.label, limit=60), *both],
        f", agreement {one.title.agreement:.3f}",
    )
