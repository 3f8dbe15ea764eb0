"""Every setting that producers and workers share, read from ``LABELYARD_*`` once."""

import os
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from labelyard.errors import ServiceConfigError
from labelyard.fields import Tenant
from labelyard.refusals import sentences_of
from labelyard.service_urls import BrokerUrl, LedgerUrl

PREFIX = "LABELYARD_"
DAY_S = 86_400
MAX_TTL_S = 3650 * DAY_S
MAX_WAIT_S = 3600
MAX_COUNT = 2**53


def _none_if_empty(value: Any) -> Any:
    return None if value == "" else value


def _split(value: Any) -> Any:
    """Read ``a,b`` as a tuple, as an operator would write it in an environment file."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


# An empty variable means the same as an unset one, as for the AWS variables.
Optional = Annotated[str | None, BeforeValidator(_none_if_empty)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


def _variable(path: Sequence[str]) -> str:
    return PREFIX + "_".join(path).upper()


class ConnectionSettings(BaseSettings):
    """Settings of producers and workers: connections, records and durability."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore"
    )

    #: Broker, which carries the messages: ``redis://``, ``rediss://`` or ``amqp://``.
    broker_url: BrokerUrl = "redis://127.0.0.1:6379/0"
    #: Redis that holds the jobs' records and results: ``redis://`` or ``rediss://``. Use an
    #: instance or database of its own, with ``maxmemory-policy noeviction``.
    ledger_url: LedgerUrl = "redis://127.0.0.1:6379/1"
    #: Prefix of every key and queue, so that services can share a Redis.
    namespace: str = Field(default="labelyard", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    #: S3-compatible server; unset means the one of the AWS variables and files. Credentials always
    #: come from there.
    s3_endpoint_url: Optional = None
    #: Region of the buckets; unset means the one of the AWS settings.
    s3_region: Optional = None
    #: Seconds that a final record can be read.
    result_ttl_s: PositiveInt = Field(default=DAY_S, le=MAX_TTL_S)
    #: Seconds after which a record that never became final is dropped; it only bounds what an
    #: abandoned installation leaves behind.
    open_ttl_s: PositiveInt = Field(default=30 * DAY_S, le=MAX_TTL_S)
    #: Images not yet final past which a submit is refused with ``queue_full``; 0 means no limit.
    max_queued_images: NonNegativeInt = Field(default=0, le=MAX_COUNT)
    #: Durability that a submit, a result and its reading wait for: ``off`` (none), ``fsync`` (the
    #: ledger's append-only file is on disk; up to a second each with ``appendfsync everysec``,
    #: little with ``always``) or ``replica`` (replicas have it). Set the same for producers and
    #: workers; docs/reliability.md has the cost.
    durable_writes: Literal["off", "fsync", "replica"] = "off"
    #: Replicas that durable_writes ``replica`` waits for.
    durable_replicas: PositiveInt = 1
    #: Longest wait for that durability; then ``ledger_unavailable``.
    durable_timeout_s: PositiveFloat = Field(default=2.5, le=MAX_WAIT_S)

    if not TYPE_CHECKING:  # type checkers know the fields from pydantic's plugin

        def __init__(self, **values: Any) -> None:
            """Take *values*, and read the others from the environment.

            Raises:
                ServiceConfigError: A value is refused; the text names each variable.
            """
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise ServiceConfigError(sentences_of(error, name=_variable)) from error
            except SettingsError as error:
                raise ServiceConfigError(str(error)) from error

    @classmethod
    def read(cls) -> Self:
        """Read the environment.

        Raises:
            ServiceConfigError: A value is refused; the text names each variable.
        """
        return cls()


class ClientSettings(ConnectionSettings):
    """Producer settings: tenant, uploads and the wait for the broker."""

    #: Tenant of the jobs whose submit names none.
    tenant: Tenant = "default"
    #: Bucket that the command line uploads local files to before it submits them.
    upload_bucket: str = "labelyard-uploads"
    #: Key prefix of uploaded files.
    upload_prefix: str = "uploads/"
    #: Secrets of ``labelyard ingest``, with commas: a sender of notifications must present one of
    #: them. Several let senders change theirs one by one. Empty only works on a loopback address.
    ingest_secret: Names = ()
    #: Longest that a submit waits for the broker. The job is in the ledger by then, and a worker's
    #: reconciler sends it when the broker is back.
    publish_timeout_s: PositiveFloat = Field(default=3.0, le=MAX_WAIT_S)


def unknown_variables(
    environ: Mapping[str, str], known_settings: Iterable[type[ConnectionSettings]]
) -> set[str]:
    """Return the LABELYARD_* variables that match no setting, so that a typo stops the start.

    pydantic-settings does not do this, even with ``extra="forbid"``.
    """
    known = {PREFIX + name.upper() for cls in known_settings for name in cls.model_fields}
    return {name for name in environ if name.startswith(PREFIX)} - known


def refuse_unknown_variables(
    known_settings: Iterable[type[ConnectionSettings]],
    *,
    replaced: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Raise if the environment sets a ``LABELYARD_*`` variable that does not exist.

    Args:
        replaced: Variables of earlier versions, with the variable that stands in their place.

    Raises:
        ServiceConfigError: Names the variables.
    """
    unknown = unknown_variables(os.environ, known_settings)
    if gone := sorted(unknown & replaced.keys()):
        news = "; ".join(f"{name}: replaced by {replaced[name]}" for name in gone)
        raise ServiceConfigError(f"{news}, see docs/settings.md")
    if unknown:
        names = ", ".join(sorted(unknown))
        raise ServiceConfigError(f"{names}: no such setting, see docs/settings.md")
