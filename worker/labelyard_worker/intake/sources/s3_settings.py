"""S3 clients of the intake: boto3 resolves settings in the worker, obstore fetches in a child."""

from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from obstore.store import S3Store

if TYPE_CHECKING:
    from obstore.store import ClientConfig

    from labelyard_worker.settings import WorkerSettings  # pydantic-settings: not in children

# A fetch may take this part of an image's time, so that a stalled server is reported as
# storage_unavailable and retried, and not as image_timed_out; decoding gets what is left.
SHARE_OF_TIMEOUT = 0.8
CONNECT_TIMEOUT_S = 3.0
PRESIGNED_FOR_S = 300
MAX_IDLE_CONNECTIONS = "64"
CREDENTIALS_LIVE_FOR = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class StaticCredentials:
    """A key pair that does not expire; hidden from ``repr``."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """Storage that the fetcher reads from, and what it may read.

    Attributes:
        endpoint_url: Address of the S3 server.
        region: Region that requests are signed for.
        is_virtual_hosted: Whether the bucket goes into the host's name.
        credentials: A lasting key pair; ``None`` when it comes from boto3 (a role) or
            when there is none.
        is_anonymous: Whether requests go unsigned, for want of any credentials.
        ca_certificates: PEM text of further authorities to trust, or ``None``.
        allowed_buckets: Buckets that may be read; empty means all.
        https_sources: Whether ``https://`` addresses are fetched.
        https_hosts: Hosts that they may name.
        https_allows_private: Whether these may have addresses that are not public; no
            setting turns it on, tests do.
        max_bytes: Largest file.
        timeout_s: Seconds for one whole fetch.
        grace_s: Seconds that a piece of a file may take at any rate.
        min_bytes_per_s: Rate below which a piece is given up once its grace is over.
        fetching_bytes: Bytes that unfinished fetches may hold in memory.
    """

    endpoint_url: str
    region: str
    is_virtual_hosted: bool = False
    credentials: StaticCredentials | None = None
    is_anonymous: bool = False
    ca_certificates: str | None = field(default=None, repr=False)
    allowed_buckets: tuple[str, ...] = ()
    https_sources: bool = False
    https_hosts: tuple[str, ...] = ()
    https_allows_private: bool = False
    max_bytes: int = 50_000_000
    timeout_s: float = 24.0
    grace_s: float = 5.0
    min_bytes_per_s: int = 50_000
    fetching_bytes: int = 128 * 1024 * 1024


def resolve_storage(settings: "WorkerSettings") -> StorageSettings:
    """Resolve the AWS variables, files and roles with boto3, once, in the parent.

    So endpoint, region, profile and credentials are the same for boto3 and for obstore,
    whose own reading of the environment differs.
    """
    import boto3  # 0.2 s and 20 MB, which children are to be spared
    import botocore.session
    from botocore.credentials import RefreshableCredentials

    configuration = botocore.session.Session()
    session = boto3.Session(botocore_session=configuration, region_name=settings.s3_region)
    client = session.client("s3", endpoint_url=settings.s3_endpoint_url)
    credentials = session.get_credentials()
    lasting = None
    if credentials is not None and not isinstance(credentials, RefreshableCredentials):
        frozen = credentials.get_frozen_credentials()
        lasting = StaticCredentials(frozen.access_key or "", frozen.secret_key or "", frozen.token)
    ca_bundle = configuration.get_config_variable("ca_bundle")
    addressing = (client.meta.config.s3 or {}).get("addressing_style")
    return StorageSettings(
        endpoint_url=client.meta.endpoint_url,
        region=client.meta.region_name or "us-east-1",
        is_virtual_hosted=addressing == "virtual",
        credentials=lasting,
        is_anonymous=credentials is None,
        ca_certificates=Path(ca_bundle).read_text("utf-8") if ca_bundle else None,
        allowed_buckets=settings.allowed_buckets,
        https_sources=settings.https_sources,
        https_hosts=settings.https_hosts,
        max_bytes=settings.max_image_bytes,
        timeout_s=SHARE_OF_TIMEOUT * settings.image_timeout_s,
        grace_s=settings.fetch_grace_s,
        min_bytes_per_s=settings.min_fetch_bytes_per_s,
        fetching_bytes=settings.max_fetched_bytes // 2,
    )


def open_store(settings: StorageSettings, bucket: str) -> S3Store:
    """Open the fast client; no request is sent before the first fetch."""
    endpoint = settings.endpoint_url
    if settings.is_virtual_hosted:
        endpoint = endpoint.replace("://", f"://{bucket}.", 1)
    client_options: ClientConfig = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_TIMEOUT_S),
        # Backstops: a transfer has tighter limits of its own.
        "read_timeout": timedelta(seconds=settings.timeout_s + 1),
        "timeout": timedelta(seconds=settings.timeout_s + 1),
        "pool_max_idle_per_host": MAX_IDLE_CONNECTIONS,
    }
    if settings.ca_certificates is not None:
        client_options["root_certificate"] = settings.ca_certificates
    return S3Store(
        bucket,
        # Both names, because obstore prefers what it finds in AWS_ENDPOINT_URL_S3.
        endpoint=endpoint,
        aws_endpoint_url_s3=endpoint,
        region=settings.region,
        virtual_hosted_style_request=settings.is_virtual_hosted,
        client_options=client_options,
        retry_config={"max_retries": 0},  # intake retries, without holding a child
        **_signing(settings),
    )


def _signing(settings: StorageSettings) -> dict[str, Any]:
    if settings.is_anonymous:
        return {"skip_signature": True}
    if settings.credentials is not None:
        keys = settings.credentials
        return {
            "credential_provider": lambda: {
                "access_key_id": keys.access_key,
                "secret_access_key": keys.secret_key,
                "token": keys.token,
                "expires_at": None,
            }
        }
    from obstore.auth.boto3 import Boto3CredentialProvider

    return {"credential_provider": Boto3CredentialProvider(ttl=CREDENTIALS_LIVE_FOR)}


def open_boto3(settings: StorageSettings) -> Any:
    """Open the client that signs requests which obstore cannot make."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    keys = settings.credentials
    return boto3.client(
        "s3",
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        aws_access_key_id=keys.access_key if keys else None,
        aws_secret_access_key=keys.secret_key if keys else None,
        aws_session_token=keys.token if keys else None,
        config=Config(
            signature_version=UNSIGNED if settings.is_anonymous else "s3v4",
            # A checksum header would have to be signed, and sent, for nothing.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "virtual" if settings.is_virtual_hosted else "path"},
        ),
    )


def presign(client: Any, *, bucket: str, key: str, **more: str) -> tuple[str, dict[str, str]]:
    """Have boto3 sign a GetObject; return its address, and the headers that belong to it."""
    url: str = client.generate_presigned_url(
        "get_object", Params={"Bucket": bucket, "Key": key, **more}, ExpiresIn=PRESIGNED_FOR_S
    )
    names = {"IfMatch": "If-Match", "IfNoneMatch": "If-None-Match"}
    return url, {names[name]: value for name, value in more.items() if name in names}


def to_json(settings: StorageSettings) -> dict[str, Any]:
    """Write settings as plain fields, for the frame that a fetcher starts with."""
    return asdict(settings)


def from_json(fields: dict[str, Any]) -> StorageSettings:
    """Rebuild settings from the output of :func:`to_json`."""
    keys = fields["credentials"]
    return StorageSettings(
        **{
            **fields,
            "credentials": StaticCredentials(**keys) if keys else None,
            "allowed_buckets": tuple(fields["allowed_buckets"]),
            "https_hosts": tuple(fields["https_hosts"]),
        }
    )
