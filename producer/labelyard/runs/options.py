"""Build a run from a producer's arguments; the same for both clients."""

import os
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias, TypedDict

from pydantic import ValidationError

from labelyard.arguments import lifetime_s, text
from labelyard.errors import InvalidMessageError
from labelyard.local_paths import is_file
from labelyard.messages import new_job_id
from labelyard.messages.models import refusal_of
from labelyard.runs.request import OutputFormat, RunRequest, SourceFormat, format_of
from labelyard.settings import ClientSettings
from labelyard.submission import Labels, reference_or_set

Source: TypeAlias = str | os.PathLike[str]
S3: Final = "s3://"


class RunOptions(TypedDict, total=False):
    """Options of a run besides its source, its labels and its output.

    Attributes:
        source_format: ``jsonl``, ``csv``, ``parquet`` or ``prefix``; by the source's ending if
            not given.
        output_format: ``jsonl`` or ``parquet``.
        embeddings: Write the embeddings as well, to score them against other labels later.
        columns: Further columns of the manifest that the results carry; ``["*"]`` means all.
        top_k: How many labels, best first, each result names.
        tenant: On whose behalf; the settings' tenant if not given.
        images_per_s: Limit on the images that are begun a second.
        expires_at: After this instant the run ends as it is.
        expires_in_s: The same, in seconds from now.
        webhook: Address that gets the end of the run by POST, signed; see docs/webhooks.md.
        idempotency_key: The tenant's own name for the run: a second start under the same key
            returns the first run.
    """

    source_format: SourceFormat
    output_format: OutputFormat
    embeddings: bool
    columns: list[str]
    top_k: int
    tenant: str
    images_per_s: float
    expires_at: datetime
    expires_in_s: float
    webhook: str
    idempotency_key: str


def make_run(
    settings: ClientSettings, source: str, labels: Labels, out: str, options: RunOptions
) -> RunRequest:
    """Make a run, checked against the contract.

    Args:
        source: Address in object storage.

    Raises:
        InvalidMessageError: A field does not follow the contract; the text names it.
    """
    if unknown := sorted(options.keys() - RunOptions.__annotations__.keys()):
        raise InvalidMessageError(f"{unknown[0]}: there is no such option of a run")
    tenant = text(options.get("tenant", settings.tenant), name="tenant")
    key = options.get("idempotency_key")
    plain = ("output_format", "embeddings", "columns", "top_k", "images_per_s", "webhook")
    out = text(out, name="out")
    try:
        return RunRequest.model_validate(
            {
                **{name: options[name] for name in plain if name in options},  # type: ignore[literal-required]
                "run_id": new_job_id()
                if key is None
                else run_id_for(tenant, text(key, name="idempotency_key")),
                "tenant": tenant,
                "source": source,
                "source_format": options.get("source_format") or format_of(source),
                "label_set": reference_or_set(labels),
                "out": out if out.endswith("/") else f"{out}/",
                "expires_at": _expiry(options),
            }
        )
    except ValidationError as error:
        raise refusal_of(error) from error


def make_rescore_run(
    settings: ClientSettings, source: str, labels: Labels, out: str | None, options: RunOptions
) -> RunRequest:
    """Make a run over the embeddings below the prefix *source*; see :func:`make_run`.

    Raises:
        InvalidMessageError: A field does not follow the contract, or an option does not go with
            old embeddings; the text names it.
    """
    if foreign := sorted(options.keys() & {"source_format", "embeddings", "columns"}):
        raise InvalidMessageError(f"{foreign[0]}: does not go with old embeddings")
    asked: RunOptions = {**options, "source_format": "embeddings"}
    request = make_run(settings, source, labels, source if out is None else out, asked)
    if out is not None:
        return request
    return request.model_copy(update={"out": f"{source}rescore-{request.run_id}/"})


def run_id_for(tenant: str, idempotency_key: str) -> str:
    """Derive the id that this tenant's *idempotency_key* always gets (UUIDv5)."""
    space = uuid.uuid5(uuid.NAMESPACE_URL, f"https://labelyard.dev/tenant/{tenant}/runs")
    return str(uuid.uuid5(space, idempotency_key))


def _expiry(options: RunOptions) -> datetime | None:
    if "expires_in_s" not in options:
        return options.get("expires_at")
    if "expires_at" in options:
        raise InvalidMessageError("give expires_at or expires_in_s, not both")
    return datetime.now(UTC) + timedelta(seconds=lifetime_s(options["expires_in_s"]))


def local_file(source: Source) -> Path | None:
    """Return the local manifest that *source* names; ``None`` for an address.

    Raises:
        InvalidMessageError: It is neither an address nor a file.
    """
    address = os.fspath(source) if isinstance(source, str | os.PathLike) else None
    if not isinstance(address, str):
        raise InvalidMessageError("source: write an s3:// address, or the path of a manifest")
    if address.startswith(S3):
        return None
    path = Path(address)
    if "://" in address or not is_file(path):
        raise InvalidMessageError(
            f"source: {address!a} is neither an s3:// address nor a manifest on this machine"
        )
    return path
