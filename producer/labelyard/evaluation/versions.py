"""New versions of a label set: what of an earlier version still holds."""

from labelyard.messages import LabelSet


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
