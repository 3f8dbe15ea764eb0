"""Label sets: labels, their prompts, and how scores are computed from them."""

from collections.abc import Iterable
from typing import Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from labelyard.fields import MAX_LABELS, Name, Prompt, Temperature, Template, Threshold
from labelyard.messages.learned import Learned
from labelyard.messages.models import Message
from labelyard.messages.short_forms import cut, first_of

DEFAULT_TEMPLATE: Final = "This is a photo of {}."

Scoring = Literal["auto", "softmax", "sigmoid"]


class Label(Message):
    """One thing that a picture may show.

    Attributes:
        name: What results call it; also what a template's ``{}`` becomes.
        prompts: Whole sentences to use in place of the templates.
        threshold: Score from which the label is *matched*. Without one a label is
            matched when it is the best (softmax) or scores 0.5 or more (sigmoid).
    """

    name: Name
    prompts: tuple[Prompt, ...] = Field(default=(), max_length=100)
    threshold: Threshold | None = None


class LabelSet(Message):
    """Labels, their prompts, and how scores are made of them.

    Attributes:
        labels: 1 to 10,000 labels with distinct names; more than 1,000 must be
            registered and referred to, not sent inline.
        templates: Sentences with one ``{}`` each for the label's name. Several are
            averaged (Radford et al. 2021, section 3.1.4).
        scoring: ``softmax`` (one label fits), ``sigmoid`` (each by itself), ``auto``
            (what the checkpoint was trained for).
        temperature: Divides the logits, 0.000001 to 1000; above 1 the scores are less sure.
        abstain: Whole sentences that mean "none of these". When one of them fits
            best, the image is *abstained* and nothing is matched.
        learned: What pictures taught; left out if there is nothing. It belongs to one checkpoint.
    """

    labels: tuple[Label, ...] = Field(min_length=1, max_length=MAX_LABELS)
    templates: tuple[Template, ...] = Field(
        default=(DEFAULT_TEMPLATE,), min_length=1, max_length=100
    )
    scoring: Scoring = "auto"
    temperature: Temperature = 1.0
    abstain: tuple[Prompt, ...] = Field(default=(), max_length=100)
    learned: Learned | None = Field(default=None, exclude_if=lambda learned: learned is None)

    @field_validator("labels")
    @classmethod
    def _names_are_distinct(cls, labels: tuple[Label, ...]) -> tuple[Label, ...]:
        if len({label.name for label in labels}) < len(labels):
            raise ValueError("two labels have the same name: name each label once")
        return labels

    @model_validator(mode="after")
    def _taught_labels_exist(self) -> Self:
        if self.learned is None:
            return self
        examples, certified = self.learned.examples, self.learned.certified
        known = {label.name for label in self.labels}
        named = [*(examples.counts if examples else ()), *(certified.labels if certified else ())]
        named += self.learned.bias or ()
        if unknown := [name for name in named if name not in known]:
            raise ValueError(f"learned names {cut(unknown[0])!r}, which is not a label of the set")
        return self

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Yield the first labels and the scoring, for ``repr`` and ``str``."""
        names = (repr(cut(label.name)) for label in self.labels)
        yield "labels", first_of(names, total=len(self.labels))
        yield "scoring", self.scoring

    def count_prompts(self) -> int:
        """Count the sentences that the text tower encodes, after templates."""
        per_label = (len(label.prompts) or len(self.templates) for label in self.labels)
        return sum(per_label) + len(self.abstain)
