"""Checks of scored pictures before a label set is fitted to them."""

from collections.abc import Sequence

from labelyard.errors import ImageError, InvalidMessageError
from labelyard.evaluation.scored_images import ScoredImage


def check_scored(scored: Sequence[ScoredImage]) -> None:
    """Refuse a sample in which a picture has no scores: it would not be the whole sample.

    Raises:
        InvalidMessageError: A picture is at fault; names the first such line.
        LabelyardError: Something else is, such as a label set of another checkpoint.
    """
    for one in scored:
        if one.error is not None:
            error = one.error.to_error()
            if not isinstance(error, ImageError):
                raise error
            raise InvalidMessageError(f"line {one.image.line}: {one.fault}")


def distinct_places(scored: Sequence[ScoredImage]) -> list[int]:
    """Return the places of pictures with distinct contents: a copy is no further evidence.

    Raises:
        InvalidMessageError: Two lines have the same picture and different labels.
    """
    first: dict[str, int] = {}
    for place, one in enumerate(scored):
        before = scored[first.setdefault(one.sha256 or one.uri, place)]
        if set(before.image.labels) != set(one.image.labels):
            raise InvalidMessageError(
                f"line {one.image.line}: the same picture as in line {before.image.line}, with "
                "another label"
            )
    return list(first.values())


def check_disjoint(scored: Sequence[ScoredImage], examples: frozenset[str]) -> None:
    """Refuse pictures that taught the set: its scores for them are better than for others.

    Raises:
        InvalidMessageError: Names the first lines.
    """
    seen = [one.image.line for one in scored if one.sha256 in examples]
    if seen:
        named = ", ".join(map(str, seen[:5]))
        found = f"{len(seen)} pictures are examples of the label set (lines {named})"
        if len(seen) == 1:
            found = f"the picture of line {named} is an example of the label set"
        raise InvalidMessageError(f"{found}: name a split of pictures that taught nothing")
