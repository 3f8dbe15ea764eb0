"""In-memory parts of a client besides jobs and label sets: dead letters, set-aside messages, tenants."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from labelyard.errors import JobNotFoundError
from labelyard.ledger import Backlog, BacklogKey, Record
from labelyard.ledger.dead_letters import DeadLetters
from labelyard.ledger.set_aside import SetAside, SetAsideMessage
from labelyard.tenants import EVERY_OTHER, TenantPolicy, Tenants, TenantUsage, tenant_name


class FakeDeadLetters(DeadLetters):
    """Dead letters, in memory: jobs that a test has buried with ``FakeClient.bury``.

    Attributes:
        buried: Their ids, oldest first.
    """

    def __init__(self, read: Callable[[str], Record], replay: Callable[[str], None]) -> None:
        self.buried: list[str] = []
        self._read = read
        self._replay = replay

    def ids(self, *, limit: int = 1000) -> list[str]:
        """List the ids, those that died first at the front."""
        return self.buried[:limit]

    def count(self) -> int:
        """Count the dead letters."""
        return len(self.buried)

    def records(self, *, limit: int = 1000) -> list[Record]:
        """Read the records, those that died first at the front."""
        return [self._read(job_id) for job_id in self.ids(limit=limit)]

    def replay(self, job_id: str) -> None:
        """Run a dead letter again, as if it had never run."""
        self.purge(job_id)
        self._replay(job_id)

    def purge(self, job_id: str) -> None:
        """Drop a dead letter; its failed result stays readable."""
        if job_id not in self.buried:
            raise JobNotFoundError(f"{job_id} is not a dead letter")
        self.buried.remove(job_id)


class FakeSetAside(SetAside):
    """Messages that were set aside, in memory: a test adds them."""

    def __init__(self) -> None:
        self._messages: dict[str, SetAsideMessage] = {}

    def add(self, message: SetAsideMessage) -> None:
        """Keep *message*."""
        self._messages.setdefault(message.id, message)

    def count(self) -> int:
        """Count the messages that are kept."""
        return len(self._messages)

    def dropped(self) -> int:
        """Return 0: a fake drops none."""
        return 0

    def messages(self, *, limit: int = 1000) -> list[SetAsideMessage]:
        """Read the messages, the newest first."""
        return list(reversed(self._messages.values()))[:limit]

    def find(self, entry_id: str) -> SetAsideMessage:
        """Read one message."""
        if entry_id not in self._messages:
            raise JobNotFoundError(f"no message was set aside as {entry_id}")
        return self._messages[entry_id]

    def remove(self, entry_ids: Sequence[str]) -> list[str]:
        """Forget messages; returns the ids of those that were kept."""
        return [one for one in entry_ids if self._messages.pop(one, None) is not None]

    def replay(self, entry_id: str) -> None:
        """Forget the message, as if it had been sent again."""
        self.find(entry_id)
        self.remove([entry_id])


class FakeTenants(Tenants):
    """Policies of tenants, in memory; a fake refuses no job because of them."""

    def __init__(self, backlog: Callable[[], Mapping[BacklogKey, Backlog]]) -> None:
        self._policies: dict[str, TenantPolicy] = {}
        self._backlog = backlog

    def set(
        self,
        tenant: str,
        *,
        weight: float = 1.0,
        max_open_images: int | None = None,
        images_per_s: float | None = None,
        prompts_per_s: float | None = None,
    ) -> TenantPolicy:
        """Replace the policy of *tenant*."""
        policy = TenantPolicy(
            weight=weight,
            max_open_images=max_open_images,
            images_per_s=images_per_s,
            prompts_per_s=prompts_per_s,
        )
        self._policies[tenant_name(tenant)] = policy
        return policy

    def get(self, tenant: str) -> TenantPolicy:
        """Read the policy that holds for *tenant*."""
        every = self._policies.get(EVERY_OTHER, TenantPolicy())
        return self._policies.get(tenant_name(tenant), every)

    def list(self) -> dict[str, TenantPolicy]:
        """Read the policies of all tenants that have one, by name."""
        return dict(sorted(self._policies.items()))

    def reset(self, tenant: str) -> None:
        """Drop the policy of *tenant*, if it has one."""
        self._policies.pop(tenant_name(tenant), None)

    def usage(self, tenant: str) -> TenantUsage:
        """Read the pending jobs of *tenant*; a fake's rates are unused."""
        name, policy = tenant_name(tenant), self.get(tenant)
        open_jobs = [one for key, one in self._backlog().items() if key.tenant == name]
        return TenantUsage(
            open_images=sum(one.images for one in open_jobs),
            open_jobs=sum(one.jobs for one in open_jobs),
            images_left=policy.images_per_s,
            prompts_left=policy.prompts_per_s,
        )


def as_pending(record: Record) -> Record:
    """Return *record* as it was when its job was submitted."""
    return replace(
        record,
        state="pending",
        result=None,
        finished_at=None,
        deaths=0,
        last_death="",
        is_replayed=True,
    )
