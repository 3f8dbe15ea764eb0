"""Every setting that producers and workers share, read from ``LABELYARD_*`` once."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

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


# An empty variable means the same as an unset one, as for the AWS variables.
Optional = Annotated[str | None, BeforeValidator(_none_if_empty)]


def _variable(path: Sequence[str]) -> str:
    return PREFIX + "_".join(path).upper()


class ConnectionSettings(BaseSettings):
    """Settings of the broker and the ledger; the same for producers and workers.

    Attributes:
        broker_url: What carries messages: ``redis://``, ``rediss://`` or ``amqp://``.
        ledger_url: Redis that holds the jobs' records and results: ``redis://`` or
            ``rediss://``. Use an instance or database of its own, with ``maxmemory-policy
            noeviction``.
        namespace: Prefix of every key and queue, so that services can share a Redis.
        s3_endpoint_url: S3-compatible server; unset means what the AWS variables and
            files say. Credentials always come from there.
        s3_region: Region of the buckets; unset means what the AWS settings say.
        result_ttl_s: Seconds that a final record can be read.
        open_ttl_s: Seconds after which a record that never became final is dropped;
            it only bounds what an abandoned installation leaves behind.
        max_queued_images: Images not yet final past which a submit is refused with
            ``queue_full``; 0 means no limit.
        durable_writes: What a submit, a result and its reading wait for: ``off`` (nothing),
            ``fsync`` (the ledger's append-only file is on disk; up to a second each with
            ``appendfsync everysec``, little with ``always``) or ``replica`` (replicas have it).
            Set the same for producers and workers; docs/reliability.md tells what it costs.
        durable_replicas: Replicas that ``replica`` waits for.
        durable_timeout_s: Longest wait for that; then ``ledger_unavailable``.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore"
    )
    needs: ClassVar[str] = "labelyard"

    broker_url: BrokerUrl = "redis://127.0.0.1:6379/0"
    ledger_url: LedgerUrl = "redis://127.0.0.1:6379/1"
    namespace: str = Field(default="labelyard", pattern=r"^[A-Za-z0-9._-]{1,64}$")
    s3_endpoint_url: Optional = None
    s3_region: Optional = None
    result_ttl_s: PositiveInt = Field(default=DAY_S, le=MAX_TTL_S)
    open_ttl_s: PositiveInt = Field(default=30 * DAY_S, le=MAX_TTL_S)
    max_queued_images: NonNegativeInt = Field(default=0, le=MAX_COUNT)
    durable_writes: Literal["off", "fsync", "replica"] = "off"
    durable_replicas: PositiveInt = 1
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
    """Settings of a producer.

    Attributes:
        tenant: On whose behalf jobs are submitted when the call names nobody.
        upload_bucket: Where the command line puts local files before it submits them.
        upload_prefix: Key prefix of these uploads.
        publish_timeout_s: Longest that a submit waits for the broker. The job is in
            the ledger by then, and a worker's reconciler sends it when the broker is back.
    """

    tenant: Tenant = "default"
    upload_bucket: str = "labelyard-uploads"
    upload_prefix: str = "uploads/"
    publish_timeout_s: PositiveFloat = Field(default=3.0, le=MAX_WAIT_S)


def unknown_variables(
    environ: Mapping[str, str], known_settings: Iterable[type[ConnectionSettings]]
) -> set[str]:
    """Return the LABELYARD_* variables that match no setting, so that a typo stops the start.

    pydantic-settings does not do this, even with ``extra="forbid"``.
    """
    known = {PREFIX + name.upper() for cls in known_settings for name in cls.model_fields}
    return {name for name in environ if name.startswith(PREFIX)} - known


def refuse_unknown_variables(known_settings: Iterable[type[ConnectionSettings]]) -> None:
    """Stop when the environment sets a variable of ours that does not exist.

    Raises:
        ServiceConfigError: Names the variables.
    """
    unknown = unknown_variables(os.environ, known_settings)
    if unknown:
        names = ", ".join(sorted(unknown))
        raise ServiceConfigError(f"{names}: no such setting, see docs/settings.md")
