"""Object delivery: write one result to object storage, with one limit on its time."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from obstore.exceptions import BaseError
from obstore.store import S3Store

from labelyard.ledger.deliveries import DeliveryOutcome
from labelyard_worker.jobs.delivery.permissions import ResultPlaces
from labelyard_worker.jobs.delivery.plan import Sendable, Sent

MAX_STORES: Final = 64


@dataclass(frozen=True)
class ObjectSender:
    """Writes results as JSON objects.

    Attributes:
        places: Where results may be written.
        open_store: Opens the client of a bucket; sends nothing.
        timeout_s: Seconds for one whole write.
    """

    places: ResultPlaces
    open_store: Callable[[str], S3Store]
    timeout_s: float
    _stores: OrderedDict[str, S3Store] = field(default_factory=OrderedDict)

    def host_of(self, job: Sendable) -> str:
        """Return the bucket of a job's object.

        Raises:
            NotPermittedError: The object may not be written.
        """
        bucket, _ = self.places.check(job)
        return f"s3://{bucket}"

    async def send(self, job: Sendable, result: Sent) -> DeliveryOutcome:
        """Write the job's object once."""
        bucket, key = self.places.check(job)
        body = result.model_dump_json().encode()
        try:
            async with asyncio.timeout(self.timeout_s):
                await self._store(bucket).put_async(
                    key, body, attributes={"Content-Type": "application/json"}, use_multipart=False
                )
        except TimeoutError:
            reason = f"not written within {self.timeout_s:g} s"
            return DeliveryOutcome("failed", reason, is_host_fault=True)
        except (BaseError, OSError) as error:
            return DeliveryOutcome("failed", cause_of(error), is_host_fault=True)
        return DeliveryOutcome("delivered")

    def _store(self, bucket: str) -> S3Store:
        if bucket not in self._stores:
            self._stores[bucket] = self.open_store(bucket)
            while len(self._stores) > MAX_STORES:
                self._stores.popitem(last=False)
        self._stores.move_to_end(bucket)
        return self._stores[bucket]


def cause_of(error: Exception) -> str:
    """Cut obstore's text down to S3's code or the kind of error: it holds addresses."""
    _, found, rest = str(error).partition("<Code>")
    code, ended, _ = rest.partition("</Code>")
    return code[:60] if found and ended else type(error).__name__
