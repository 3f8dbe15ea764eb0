"""Tenants that share one installation: their weights, their quotas, and their use of these."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from labelyard.arguments import text
from labelyard.errors import BrokerUnavailableError, InvalidMessageError, LedgerUnavailableError
from labelyard.fields import AS_NUMBER, Tenant
from labelyard.ledger import Ledger
from labelyard.ledger.limits import BURST_S
from labelyard.ledger.redis_errors import ledger_errors_as_ours, read_count
from labelyard.messages.models import Message
from labelyard.publisher import MAX_WEIGHT, MIN_WEIGHT, Publisher
from labelyard.queues import JOB_QUEUES

log: logging.Logger = logging.getLogger(__name__)

#: Stands for all tenants without a policy of their own.
EVERY_OTHER: Final = "*"
MAX_OPEN_IMAGES: Final = 2**31
MIN_RATE: Final = 0.001
MAX_RATE: Final = 1e9
_TENANT: Final[TypeAdapter[str]] = TypeAdapter(Tenant)

_Weight = Annotated[float, Field(ge=MIN_WEIGHT, le=MAX_WEIGHT, allow_inf_nan=False), AS_NUMBER]
_Count = Annotated[int, Field(ge=0, le=MAX_OPEN_IMAGES), AS_NUMBER]
_Rate = Annotated[float, Field(ge=MIN_RATE, le=MAX_RATE, allow_inf_nan=False), AS_NUMBER]


class TenantPolicy(Message):
    """Weight and quotas of a tenant; ``None`` means no limit.

    Attributes:
        weight: Share of the workers while several tenants have jobs queued, relative to those
            of the others: 0.01 to 1000. Only a broker on Redis goes by it.
        max_open_images: Images in its jobs that are not final, in all queues.
        images_per_s: Images that it may submit in a second, 0.001 to a billion.
        prompts_per_s: Prompts that it may submit in a second: labels times templates of
            label sets that stand in the jobs themselves, and the distinct texts beside pictures. A
            registered label set counts nothing.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore")

    weight: _Weight = 1.0
    max_open_images: _Count | None = None
    images_per_s: _Rate | None = None
    prompts_per_s: _Rate | None = None


@dataclass(frozen=True, slots=True)
class TenantUsage:
    """Use that a tenant makes of its quotas now.

    Attributes:
        open_images: Images in its jobs that are not final.
        open_jobs: Number of these jobs.
        images_left: Images that it may submit at once; ``None`` without ``images_per_s``. Below
            0 after a job that was larger than a second's rate, or after adopted messages.
        prompts_left: Prompts, in the same way.
    """

    open_images: int
    open_jobs: int
    images_left: float | None
    prompts_left: float | None


class Tenants:
    """Policies of the tenants in a namespace.

    A change takes effect with the next job that is submitted and with the next message that is
    claimed. Every method raises LedgerUnavailableError when Redis gives no answer.
    """

    def __init__(self, ledger: Ledger, publisher: Publisher) -> None:
        self._ledger = ledger
        self._publisher = publisher

    def set(
        self,
        tenant: str,
        *,
        weight: float = 1.0,
        max_open_images: int | None = None,
        images_per_s: float | None = None,
        prompts_per_s: float | None = None,
    ) -> TenantPolicy:
        """Replace the policy of *tenant*, and write all weights to the broker.

        If the broker does not answer, the leading worker writes them within 10 seconds of its
        return.

        Args:
            tenant: Its name; ``*`` stands for all tenants without a policy of their own.
            weight: See :class:`TenantPolicy`, as for the others.

        Returns:
            The policy.

        Raises:
            InvalidMessageError: A value is out of its range, or *tenant* cannot be a tenant.
        """
        policy = TenantPolicy(
            weight=weight,
            max_open_images=max_open_images,
            images_per_s=images_per_s,
            prompts_per_s=prompts_per_s,
        )
        name = tenant_name(tenant)
        with ledger_errors_as_ours():
            stored = policy.model_dump_json(exclude_none=True)
            self._ledger.client.hset(self._ledger.keys.tenants, name, stored)
        self._share()
        return policy

    def get(self, tenant: str) -> TenantPolicy:
        """Read the policy that holds for *tenant*: its own, else that of ``*``, else no limits.

        Raises:
            InvalidMessageError: *tenant* cannot be a tenant.
        """
        return self._policy_of(tenant_name(tenant))

    def list(self) -> dict[str, TenantPolicy]:
        """Read the policies of all tenants that have one, by name; ``*`` is one of the names."""
        return read_policies(self._ledger)

    def reset(self, tenant: str) -> None:
        """Drop the policy of *tenant*, if it has one; that of ``*`` holds for it then.

        Raises:
            InvalidMessageError: *tenant* cannot be a tenant.
        """
        name = tenant_name(tenant)
        with ledger_errors_as_ours():
            self._ledger.client.hdel(self._ledger.keys.tenants, name)
        self._share()

    def usage(self, tenant: str) -> TenantUsage:
        """Read the use that *tenant* makes of its quotas.

        Raises:
            InvalidMessageError: *tenant* cannot be a tenant; ``*`` is none.
        """
        name = tenant_name(tenant)
        if name == EVERY_OTHER:
            raise InvalidMessageError("tenant: each tenant's use is its own: name one")
        policy = self._policy_of(name)
        keys = self._ledger.keys
        images, jobs = (
            [f"{unit}:{queue}:{name}" for queue in JOB_QUEUES] for unit in ("images", "jobs")
        )
        with ledger_errors_as_ours(), self._ledger.client.pipeline(transaction=False) as pipeline:
            pipeline.hmget(keys.backlog, images)
            pipeline.hmget(keys.backlog, jobs)
            pipeline.hgetall(keys.rates(name))
            pipeline.time()
            open_images, open_jobs, buckets, (seconds, microseconds) = pipeline.execute()
        now = seconds + microseconds / 1_000_000
        return TenantUsage(
            open_images=sum(map(read_count, open_images)),
            open_jobs=sum(map(read_count, open_jobs)),
            images_left=_tokens(buckets, "images", rate=policy.images_per_s, now=now),
            prompts_left=_tokens(buckets, "prompts", rate=policy.prompts_per_s, now=now),
        )

    def _policy_of(self, name: str) -> TenantPolicy:
        with ledger_errors_as_ours():
            found: Sequence[Any] = self._ledger.client.hmget(
                self._ledger.keys.tenants, [name, EVERY_OTHER]
            )
        stored = next(filter(None, found), None)
        return TenantPolicy() if stored is None else _read_policy(name, stored)

    def _share(self) -> None:
        """Write all weights to the broker, after the ledger has the change."""
        self._ledger.wait_until_durable()
        try:
            write_weights(self._ledger, self._publisher)
        except BrokerUnavailableError as error:
            log.warning("weights_not_written", extra={"fields": {"why": type(error).__name__}})


def tenant_name(tenant: Any) -> str:
    """Return *tenant* if it can be one, or stands for all others.

    Raises:
        InvalidMessageError: It cannot.
    """
    name = text(tenant, name="tenant")
    if name == EVERY_OTHER:
        return name
    try:
        return _TENANT.validate_python(name)
    except ValidationError:
        raise InvalidMessageError(
            "tenant: write 1 to 64 letters, digits, dots, underscores and hyphens, a letter or "
            "digit first; or * for all tenants without a policy of their own"
        ) from None


def read_policies(ledger: Ledger) -> dict[str, TenantPolicy]:
    """Read the policies of all tenants that have one, by name.

    Raises:
        LedgerUnavailableError: Redis gave no answer, or a policy cannot be read.
    """
    with ledger_errors_as_ours():
        stored: Any = ledger.client.hgetall(ledger.keys.tenants)
    return {name: _read_policy(name, stored[name]) for name in sorted(stored)}


def write_weights(ledger: Ledger, publisher: Publisher) -> None:
    """Write the weights of all tenants from the ledger to the broker.

    Raises:
        LedgerUnavailableError: The ledger gave no answer.
        BrokerUnavailableError: The broker gave none.
    """
    policies = read_policies(ledger)
    publisher.write_weights({name: policy.weight for name, policy in policies.items()})


def _read_policy(name: str, stored: str) -> TenantPolicy:
    try:
        return TenantPolicy.model_validate_json(stored)
    except ValidationError as error:
        raise LedgerUnavailableError(
            f"the policy of tenant {name} cannot be read, set it again: another program has "
            "written there"
        ) from error


def _tokens(
    buckets: Mapping[str, str], unit: str, *, rate: float | None, now: float
) -> float | None:
    """Compute the tokens in a bucket, as ``_quotas.lua`` does."""
    if rate is None:
        return None
    capacity = rate * BURST_S
    try:
        level, at = float(buckets[unit]), float(buckets[f"{unit}_at"])
    except (KeyError, ValueError):
        return capacity
    return min(capacity, level + max(0.0, now - at) * rate)
