"""Every key of labelyard in Redis: its type, its writer and its time to live.

``docs/ledger-keys.md`` is generated for operators from the classes of this file and those that it
joins, in their order. The strings are those that running deployments hold: a key is never renamed.
"""

from functools import cached_property

from labelyard.ledger.answer_keys import AnswerKeys
from labelyard.ledger.channel_keys import ChannelKeys
from labelyard.ledger.event_keys import EventKeys
from labelyard.ledger.final_job_keys import FinalJobKeys
from labelyard.ledger.job_keys import JobKeys
from labelyard.ledger.label_set_keys import LabelSetKeys
from labelyard.ledger.run_keys import RunKeys
from labelyard.ledger.set_aside_keys import SetAsideKeys
from labelyard.ledger.tenant_keys import TenantKeys
from labelyard.ledger.worker_keys import WorkerKeys


class LedgerKeys(
    JobKeys,
    TenantKeys,
    FinalJobKeys,
    WorkerKeys,
    EventKeys,
    RunKeys,
    ChannelKeys,
    SetAsideKeys,
    LabelSetKeys,
    AnswerKeys,
):
    """Keys and channels of one namespace in the ledger's Redis (``LABELYARD_LEDGER_URL``).

    Methods name the keys of one job, one worker or one label set; attributes the others. Keys
    with a subject of their own stand in the class of that subject.
    """

    def of_record(self, job_id: str) -> list[str]:
        """Return the KEYS of a script that changes a record, in the order of ``_prelude.lua``."""
        return [self.job(job_id), *self._shared_by_records, self.tombstone(job_id), self.backlog]

    @cached_property
    def _shared_by_records(self) -> tuple[str, ...]:
        return (
            self.open,
            self.due,
            self.expiring,
            self.open_images,
            self.totals,
            self.dead_letters,
            self.pending_deliveries,
        )

    def object_event(self, rule: str, object_digest: str) -> str:
        """Newest event of one object that `labelyard ingest` has made a job of.

        Type: hash
        Holds: the event's identity and time, its job, and until when a claim on it is held; empty
            once the job has a record.
        Writer: `labelyard ingest`, for each event that a rule matches.
        TTL: `window_s` of the rule file, a day by default, after the last event.
        """
        return f"{self.namespace}:object_event:{rule}:{object_digest}"

    @cached_property
    def barrier(self) -> str:
        """Write that a barrier of `LABELYARD_DURABLE_WRITES` waits for.

        Type: string
        Holds: `1`.
        Writer: clients and workers with durable writes.
        TTL: an hour.
        """
        return f"{self.namespace}:barrier"

    def doctor(self, token: str) -> str:
        """Key that `labelyard doctor` tries the user's rights on.

        Type: string
        Holds: `1`.
        Writer: `labelyard doctor`, which deletes it at once.
        TTL: a minute.
        """
        return f"{self.namespace}:doctor:{token}"


class CacheKeys:
    """Keys of one namespace in the Redis of cached embeddings (``LABELYARD_EMBEDDINGS_URL``).

    That Redis may evict them: a missing entry is computed again.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace: str = namespace

    def text(self, fingerprint: str, prompt_sha256: str) -> str:
        """Embedding of a prompt by one checkpoint.

        Type: string
        Holds: the vector, as little-endian float32.
        Writer: the worker that encoded the prompt.
        TTL: `embeddings_ttl_s` for a registered label set's prompts, an hour for others.
        """
        return f"{self.namespace}:text:{fingerprint}:{prompt_sha256}"

    def image(self, identity: str, address_sha256: str) -> str:
        """Content of an image's address when it was last read.

        Type: string
        Holds: ETag, SHA-256 of the bytes, width and height, as JSON.
        Writer: the worker that embedded the image.
        TTL: `embeddings_ttl_s`.
        """
        return f"{self.namespace}:{identity}:image:{address_sha256}"

    def image_embeds(self, identity: str, content_sha256: str) -> str:
        """Embedding of an image's content by one checkpoint and preprocessing.

        Type: string
        Holds: the vector, as little-endian float32.
        Writer: the worker that embedded the image.
        TTL: `embeddings_ttl_s`.
        """
        return f"{self.namespace}:{identity}:embeds:{content_sha256}"
