"""Maps of explanations as PNG objects, written before their job ends."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from obstore.exceptions import BaseError

from labelyard.errors import InvalidMessageError, StorageUnavailableError
from labelyard.messages import Job
from labelyard_worker.jobs.delivery.objects import ObjectSender, cause_of
from labelyard_worker.jobs.delivery.permissions import TENANT, ResultPlace
from labelyard_worker.metrics import DELIVERIES

#: Start of their keys, behind the prefix of the place.
MAPS_PREFIX: Final = "explanations/"


@dataclass(frozen=True)
class MapObjects:
    """Writes maps to the first place for results; safe to call from several threads.

    The key is made of the job's id and the places of picture and label in the job: a job that is
    run again writes the same objects.

    Attributes:
        sender: Where results may be written, and how.
    """

    sender: ObjectSender

    def check(self) -> ResultPlace:
        """Return the place that maps are written to.

        Raises:
            InvalidMessageError: The operator lists none.
        """
        places = self.sender.places.places
        if not places:
            raise InvalidMessageError(
                "explain writes pictures, and the workers may write nowhere: have the operator "
                "list a bucket in LABELYARD_RESULT_BUCKETS"
            )
        return places[0]

    def uri(self, job: Job, *, image: int, label: int) -> str:
        """Return the address of one map.

        Args:
            image: Index of the picture in the job.
            label: Index of the label in ``explain``.
        """
        place = self.check()
        prefix = place.prefix.replace(TENANT, job.tenant)
        return f"s3://{place.bucket}/{prefix}{MAPS_PREFIX}{job.job_id}/{image}-{label}.png"

    def write(self, maps: Mapping[str, bytes]) -> None:
        """Write maps by address, all at once.

        Raises:
            StorageUnavailableError: One was not written; try again.
        """
        if not maps:
            return
        try:
            asyncio.run(self._write_all(maps))
        except (TimeoutError, BaseError, OSError) as error:
            DELIVERIES.labels("object", "failed").inc()
            is_late = isinstance(error, TimeoutError)
            limit_s = self.sender.timeout_s
            reason = f"not written within {limit_s:g} s" if is_late else cause_of(error)
            raise StorageUnavailableError(next(iter(maps)), reason) from error
        DELIVERIES.labels("object", "delivered").inc(len(maps))

    async def _write_all(self, maps: Mapping[str, bytes]) -> None:
        bucket, _, _ = next(iter(maps)).removeprefix("s3://").partition("/")
        store = self.sender.open_store(bucket)  # of its own: several threads may write at once
        async with asyncio.timeout(self.sender.timeout_s):
            await asyncio.gather(
                *(
                    store.put_async(
                        uri.removeprefix(f"s3://{bucket}/"),
                        body,
                        attributes={"Content-Type": "image/png"},
                        use_multipart=False,
                    )
                    for uri, body in maps.items()
                )
            )
