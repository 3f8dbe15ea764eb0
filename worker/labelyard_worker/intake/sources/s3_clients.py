"""Open the S3 clients of the worker: obstore's, which is fast, and boto3's, which signs any key."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from obstore.store import S3Store

from labelyard.s3_client import open_s3_client
from labelyard_worker.intake.sources.s3_settings import S3Settings

if TYPE_CHECKING:
    from obstore.store import ClientConfig

CONNECT_TIMEOUT_S = 3.0
PRESIGNED_FOR_S = 300
MAX_IDLE_CONNECTIONS = "64"
CREDENTIALS_LIVE_FOR = timedelta(minutes=5)


def open_store(settings: S3Settings, bucket: str) -> S3Store:
    """Open obstore's client of one bucket; it sends nothing before the first request."""
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
        # Both names, because obstore prefers the variable AWS_ENDPOINT_URL_S3.
        endpoint=endpoint,
        aws_endpoint_url_s3=endpoint,
        region=settings.region,
        virtual_hosted_style_request=settings.is_virtual_hosted,
        client_options=client_options,
        retry_config={"max_retries": 0},  # intake retries, without holding a child
        **_signing(settings),
    )


def _signing(settings: S3Settings) -> dict[str, Any]:
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


def open_signer(settings: S3Settings) -> Any:
    """Open boto3's client, which signs requests that obstore cannot make."""
    from botocore import UNSIGNED

    return open_s3_client(
        endpoint_url=settings.endpoint_url,
        region=settings.region,
        credentials=settings.credentials,
        addressing="virtual" if settings.is_virtual_hosted else "path",
        signature_version=UNSIGNED if settings.is_anonymous else "s3v4",
        # A checksum header would have to be signed, and sent, for nothing.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )


def presign(signer: Any, *, bucket: str, key: str, **more: str) -> tuple[str, dict[str, str]]:
    """Have boto3 sign a GetObject; return its address, and the headers that belong to it."""
    url: str = signer.generate_presigned_url(
        "get_object", Params={"Bucket": bucket, "Key": key, **more}, ExpiresIn=PRESIGNED_FOR_S
    )
    names = {"IfMatch": "If-Match", "IfNoneMatch": "If-None-Match"}
    return url, {names[name]: value for name, value in more.items() if name in names}
