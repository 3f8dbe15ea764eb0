"""Settings of the S3 source, resolved once in the worker as boto3 resolves them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from labelyard.s3_client import S3Credentials, open_s3_client

if TYPE_CHECKING:
    from labelyard_worker.settings import WorkerSettings  # pydantic-settings: not in children


@dataclass(frozen=True, slots=True)
class S3Settings:
    """An S3 server, how to sign requests to it, and the buckets that may be read.

    Attributes:
        endpoint_url: Address of the server.
        region: Region that requests are signed for.
        is_virtual_hosted: Whether the bucket goes into the host's name.
        credentials: A lasting key pair; ``None`` when it comes from boto3 (a role) or
            when there is none.
        is_anonymous: Whether requests go unsigned, for want of any credentials.
        ca_certificates: PEM text of further authorities to trust, or ``None``.
        allowed_buckets: Buckets that may be read; empty means all.
        timeout_s: Seconds for one whole request.
    """

    endpoint_url: str
    region: str
    is_virtual_hosted: bool = False
    credentials: S3Credentials | None = None
    is_anonymous: bool = False
    ca_certificates: str | None = field(default=None, repr=False)
    allowed_buckets: tuple[str, ...] = ()
    timeout_s: float = 24.0

    def to_json(self) -> dict[str, Any]:
        """Write the settings as plain fields, which cross to a fetcher."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Rebuild settings from the output of :meth:`to_json`."""
        keys = fields["credentials"]
        return cls(
            **{
                **fields,
                "credentials": S3Credentials(**keys) if keys else None,
                "allowed_buckets": tuple(fields["allowed_buckets"]),
            }
        )


def resolve_s3(settings: "WorkerSettings", *, timeout_s: float) -> S3Settings:
    """Resolve AWS's variables, files and roles with boto3.

    So endpoint, region, profile and credentials are the same for boto3 and for obstore,
    whose own reading of the environment differs.
    """
    import boto3  # 0.2 s and 20 MB, which children are to be spared
    import botocore.session
    from botocore.credentials import RefreshableCredentials

    configuration = botocore.session.Session()
    session = boto3.Session(botocore_session=configuration, region_name=settings.s3_region)
    client = open_s3_client(endpoint_url=settings.s3_endpoint_url, session=session)
    credentials = session.get_credentials()
    lasting = None
    if credentials is not None and not isinstance(credentials, RefreshableCredentials):
        frozen = credentials.get_frozen_credentials()
        lasting = S3Credentials(frozen.access_key or "", frozen.secret_key or "", frozen.token)
    ca_bundle = configuration.get_config_variable("ca_bundle")
    addressing = (client.meta.config.s3 or {}).get("addressing_style")
    return S3Settings(
        endpoint_url=client.meta.endpoint_url,
        region=client.meta.region_name or "us-east-1",
        is_virtual_hosted=addressing == "virtual",
        credentials=lasting,
        is_anonymous=credentials is None,
        ca_certificates=Path(ca_bundle).read_text("utf-8") if ca_bundle else None,
        allowed_buckets=settings.allowed_buckets,
        timeout_s=timeout_s,
    )
