"""Choice of a template by measurement: one label set with each of several templates."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelyard.arguments import listed, text
from labelyard.errors import InvalidMessageError
from labelyard.evaluation.evaluation import Evaluation
from labelyard.local_paths import printable, read_text
from labelyard.messages import LabelSet


@dataclass(frozen=True, slots=True)
class TemplateChoice:
    """Evaluations of a label set with several templates, on the same pictures.

    Attributes:
        templates: The templates.
        evaluations: One for each, in their order.
    """

    templates: Sequence[str]
    evaluations: Sequence[Evaluation]

    @property
    def best(self) -> str:
        """Template with the highest accuracy; of equal ones that with the best likelihood."""

        def rank(place: int) -> tuple[float, float]:
            figures = self.evaluations[place].figures
            nll = float("inf") if figures.nll is None else figures.nll
            return figures.accuracy or 0.0, -nll

        return self.templates[max(range(len(self.templates)), key=rank)]

    def report(self) -> dict[str, Any]:
        """Describe the choice for programs."""
        names = ("n", "accuracy", "accuracy_interval", "ece", "nll", "failed")
        reports = [one.report() for one in self.evaluations]
        return {
            "best": self.best,
            "templates": [
                {"template": template, **{name: report[name] for name in names}}
                for template, report in zip(self.templates, reports, strict=True)
            ],
        }


def with_templates(
    label_set: LabelSet, templates: Sequence[str] | str | Path
) -> list[tuple[str, LabelSet]]:
    """Return the set with each template by itself.

    Args:
        templates: Sentences with one ``{}``, or a file with one a line.

    Raises:
        InvalidMessageError: There is none, one is malformed, or the set learned with another.
    """
    if isinstance(templates, str | Path):
        try:
            lines = read_text(templates).splitlines()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            raise InvalidMessageError(f"templates: {printable(templates)}: {reason}") from error
        templates = [line.strip() for line in lines if line.strip()]
    if label_set.learned is not None:
        raise InvalidMessageError(
            "templates: the set learned with its own: choose one before the set is taught"
        )
    sentences = [text(one, name="templates") for one in listed(templates, name="templates")]
    if not (chosen := list(dict.fromkeys(sentences))):
        raise InvalidMessageError("templates: there is none")
    fields = label_set.model_dump()
    return [(template, LabelSet(**{**fields, "templates": (template,)})) for template in chosen]
