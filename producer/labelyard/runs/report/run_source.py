"""Output that a report is made of, found by the id of its run."""

from dataclasses import dataclass
from pathlib import Path

from labelyard.client import Client
from labelyard.errors import InvalidMessageError, UnknownLabelSetError
from labelyard.local_paths import is_folder
from labelyard.messages import LabelSet
from labelyard.settings import ClientSettings


@dataclass(frozen=True, slots=True)
class ReportSource:
    """Place of a run's output.

    Attributes:
        address: Folder, or ``s3://`` prefix.
        label_set: Label set of the run, if the ledger knows it.
    """

    address: str
    label_set: LabelSet | None = None


def find_source(source: str | Path, settings: ClientSettings) -> ReportSource:
    """Return a folder or a prefix as it is, and look anything else up as the id of a run.

    Raises:
        InvalidMessageError: It is a path, and there is no folder.
        RunNotFoundError: There is no such run.
        LedgerUnavailableError: The ledger gave no answer.
    """
    text = str(source)
    if text.startswith("s3://") or is_folder(source):
        return ReportSource(text)
    if isinstance(source, Path) or "/" in text or text.startswith("."):
        raise InvalidMessageError(f"{text}: there is no such folder")
    with Client(settings) as client:
        request = client.runs.get(text).request
        if isinstance(request.label_set, LabelSet):
            return ReportSource(request.out, request.label_set)
        try:
            return ReportSource(request.out, client.label_sets.get(request.label_set))
        except UnknownLabelSetError:  # deleted since: the report has no thresholds then
            return ReportSource(request.out)
