"""Texts beside the pictures of a run: how many contradict them, and the clearest examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from labelyard.markup import Markup, foreign, join, tag
from labelyard.messages import TitleFinding
from labelyard.runs.lines import ResultLine
from labelyard.runs.report.examples import PictureExample
from labelyard.runs.report.picture_card import picture_grid
from labelyard.runs.report.samples import LowestItems
from labelyard.runs.report.wording import percent, plural


@dataclass(frozen=True, slots=True)
class TitledExample:
    """A picture that its text contradicts."""

    picture: PictureExample
    title: TitleFinding


class TitleTally:
    """Counts of pictures with a text that was compared with them.

    Attributes:
        compared: Pictures with such a text.
        disagreeing: Those of them that their text contradicts.
        worst: Those with the lowest agreement.
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
        if title.agrees:
            return
        self.disagreeing += 1
        rank = (title.agreement, priority)
        if self.worst.accepts(rank):
            self.worst.offer(rank, line.custom_id, TitledExample(PictureExample.of(line), title))


def titles(
    tally: TitleTally, examples: Sequence[TitledExample], thumbnails: Mapping[str, str]
) -> Markup:
    """Draw the pictures that their texts contradict, the clearest contradictions first."""
    texts = plural(tally.compared, "text")
    if not tally.disagreeing:
        return tag("p", f"None of {texts} contradicts its picture.")
    lead = (
        f"{plural(tally.disagreeing, 'picture')} of {texts} "
        f"({percent(tally.disagreeing, tally.compared)}). Either another thing was pictured, or "
        "the text is misleading. Below are the clearest cases:"
    )
    notes = [_note(one) for one in examples]
    pictures = [one.picture for one in examples]
    grid = picture_grid(pictures, thumbnails, notes=notes) if examples else None
    return join(tag("p", lead), grid)


def _note(one: TitledExample) -> Markup:
    """Write the label by the text, and that of the picture and the text together."""
    both = [", together ", foreign(one.picture.best[0][0], limit=60)] if one.picture.best else []
    return join(
        ["text: ", foreign(one.title.label, limit=60), *both],
        f", agreement {one.title.agreement:.3f}",
    )
