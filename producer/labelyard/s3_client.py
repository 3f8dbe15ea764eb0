"""Open boto3 clients for S3: the only file of both packages that does."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class S3Credentials:
    """A key pair that does not expire; hidden from ``repr``."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


def open_s3_client(
    *,
    endpoint_url: str | None = None,
    region: str | None = None,
    credentials: S3Credentials | None = None,
    addressing: Literal["path", "virtual"] | None = None,
    session: Any = None,
    **config: Any,
) -> Any:
    """Open a boto3 client, which sends nothing yet; the caller closes it.

    Args:
        endpoint_url: Address of the server; ``None`` leaves it, like region and credentials,
            to AWS's variables and files.
        region: Region that requests are signed for.
        credentials: Key pair to sign with.
        addressing: Where the bucket goes: into the path, or into the host's name.
        session: Session of boto3 to take everything else from; a new one when ``None``.
        **config: Settings of ``botocore.config.Config``.

    Raises:
        ModuleNotFoundError: boto3 is not installed; it comes with the extra ``cli``.
    """
    import boto3  # 0.2 s and 20 MB, which a program without uploads is to be spared
    from botocore.config import Config

    if session is None:
        # The default session keeps the first credentials that it ever saw, which does no harm
        # if they are given; opening a client on a new one takes ten times as long.
        session = boto3 if credentials is not None else boto3.session.Session()
    keys = {}
    if credentials is not None:
        keys = {
            "aws_access_key_id": credentials.access_key,
            "aws_secret_access_key": credentials.secret_key,
            "aws_session_token": credentials.token,
        }
    # Any s3 setting here would replace all those of AWS's files.
    style: dict[str, Any] = {"s3": {"addressing_style": addressing}} if addressing else {}
    return session.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=region,
        config=Config(**style, **config),
        **keys,
    )
