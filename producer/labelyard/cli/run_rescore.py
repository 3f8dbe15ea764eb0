"""Command that scores the embeddings of an old run."""

from labelyard.cli.inputs import AsJson
from labelyard.cli.label_options import LabelChoice
from labelyard.cli.option_group import with_options
from labelyard.cli.run_options import OldRun, OtherOut, RunChoice, Watch, show_started
from labelyard.client import Client


@with_options
def rescore(
    old_run: OldRun,
    labels: LabelChoice,
    *,
    out: OtherOut = None,
    choice: RunChoice,
    watches: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Score an old run's embeddings against other labels, without reading a picture."""
    named_labels = labels.read()
    with Client() as client:
        handle = client.runs.rescore(old_run, named_labels, out=out, **choice.given())
        show_started(client, handle, watches=watches, as_json=as_json)
