"""Command that scores the embeddings of an old run."""

from labelyard.cli.inputs import AsJson
from labelyard.cli.label_options import (
    Abstain,
    LabelChoice,
    LabelNames,
    LabelsFile,
    LabelText,
    LabelThreshold,
    ScoringName,
    Templates,
)
from labelyard.cli.run_options import (
    FormOfResults,
    Key,
    Lifetime,
    MostLabels,
    OldRun,
    OtherOut,
    RunTenant,
    Watch,
    Webhook,
    given_options,
    show_started,
)
from labelyard.client import Client


def rescore(
    old_run: OldRun,
    labels: LabelText = "",
    label: LabelNames = None,
    labels_file: LabelsFile = None,
    template: Templates = None,
    abstain: Abstain = None,
    threshold: LabelThreshold = None,
    scoring: ScoringName = None,
    out: OtherOut = None,
    output_format: FormOfResults = "jsonl",
    top_k: MostLabels = 5,
    tenant: RunTenant = None,
    expires_in_s: Lifetime = None,
    key: Key = None,
    webhook: Webhook = None,
    watches: Watch = False,
    as_json: AsJson = False,
) -> None:
    """Score an old run's embeddings against other labels, without reading a picture."""
    named_labels = LabelChoice(
        text=labels,
        names=label,
        file=labels_file,
        templates=template,
        abstain=abstain,
        threshold=threshold,
        scoring=scoring,
    ).read()
    options = given_options(
        output_format=output_format,
        top_k=top_k,
        tenant=tenant,
        expires_in_s=expires_in_s,
        idempotency_key=key,
        webhook=webhook,
    )
    with Client() as client:
        handle = client.runs.rescore(old_run, named_labels, out=out, **options)
        show_started(client, handle, watches=watches, as_json=as_json)
