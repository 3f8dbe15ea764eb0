"""New versions of a label set: what of an earlier version still holds, and what was learned."""

from typing import Any

from labelyard.messages import LabelSet, Learned


def without_promise(label_set: LabelSet) -> LabelSet:
    """Return the set without the thresholds and the promise of an earlier calibration.

    They are of other scores. Thresholds that the owner set stay.
    """
    learned = label_set.learned
    if learned is None or learned.certified is None:
        return label_set
    labels = tuple(label.model_copy(update={"threshold": None}) for label in label_set.labels)
    kept = learned.model_copy(update={"certified": None})
    return label_set.model_copy(update={"labels": labels, "learned": kept})


def with_learned(label_set: LabelSet, fingerprint: str, **learned: Any) -> LabelSet:
    """Return the set with more learned fields, checked.

    Args:
        fingerprint: Of the checkpoint that the set is for, if it has learned nothing yet.
        learned: Fields of ``Learned``.
    """
    present = label_set.learned or Learned(checkpoint=fingerprint)
    changed = label_set.model_copy(update={"learned": present.model_copy(update=learned)})
    return LabelSet.model_validate(changed.model_dump())
