"""The argument SET of a command: a registered label set by reference or name, or a file."""

from pathlib import Path
from typing import Annotated, Final

import typer

from labelyard.cli.label_options import JSON_SUFFIXES, read_label_set
from labelyard.client import Client
from labelyard.errors import UnknownLabelSetError
from labelyard.evaluation.chosen_set import ChosenLabelSet
from labelyard.local_paths import is_file

SET_HELP: Final = (
    "Registered label set: name@sha256:…, an alias, or its name for the newest version; or a file "
    "of labels"
)
FILE_SUFFIXES: Final = (*JSON_SUFFIXES, ".txt")
SetName = Annotated[str, typer.Argument(metavar="SET", help=SET_HELP)]


def read_set(client: Client, text: str) -> ChosenLabelSet:
    """Read the label set that *text* names.

    Raises:
        UnknownLabelSetError: There is neither such a registered set nor such a file.
        InvalidMessageError: The file holds no label set.
    """
    path = Path(text)
    if "/" in text or path.suffix in FILE_SUFFIXES:  # a name has neither
        return ChosenLabelSet(read_label_set(path), None)
    if "@" in text:
        reference = client.label_sets.resolve(text)
        return ChosenLabelSet(client.label_sets.get(reference), reference)
    if versions := client.label_sets.versions(text):
        return ChosenLabelSet(client.label_sets.get(versions[-1]), versions[-1])
    if is_file(path):
        return ChosenLabelSet(read_label_set(path), None)
    raise UnknownLabelSetError(
        f"{text}: no label set is registered under this name, and there is no such file; "
        "`labelyard label-sets list` has the names"
    )
