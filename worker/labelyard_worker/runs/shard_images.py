"""Images of a shard on their way: a bounded window through the embedder, in the lines' order."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from labelyard.errors import TransientError
from labelyard.messages import ImageRef
from labelyard.queues import Priority
from labelyard.runs.lines import ErrorLine, PlannedLine
from labelyard.runs.parts import ShardPart
from labelyard_worker.embedding import Embedded, Embedder
from labelyard_worker.image_outcomes import (
    ImageOutcome,
    raise_if_storage_is_away,
    wait_for_image,
)
from labelyard_worker.jobs.cancellation import Token

#: Images that are looked up, and scored, together.
CHUNK: Final = 32
#: Times that an image is tried in all when storage fails for it alone.
TRIES: Final = 3
RETRY_PAUSE_S: Final = 0.5

PlanLines = Sequence[PlannedLine | ErrorLine]


@dataclass
class SentLines:
    """Lines of a shard whose images are on their way.

    Attributes:
        lines: Lines, those without an image included.
        images: Images by the index of their line.
        futures: Embeddings of the images.
        repeated: Indices of the lines whose address an earlier line of the shard has.
    """

    lines: PlanLines
    images: dict[int, ImageRef] = field(default_factory=dict)
    futures: "dict[int, Future[Embedded]]" = field(default_factory=dict)
    repeated: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class ShardImages:
    """Sends the images of one shard, at most *window* at once.

    Attributes:
        embedder: Makes the embeddings.
        part: The shard.
        token: Stops the attempt.
        window: Most images on their way; 1 for a shard that may kill its worker.
        note_sent: Called before the images of some lines are sent, with the number of lines
            that are done and of those that are sent.
    """

    embedder: Embedder
    part: ShardPart
    token: Token
    window: int
    note_sent: Callable[[int, int], None]

    def outcomes(self, lines: PlanLines) -> Iterator[tuple[PlanLines, dict[int, ImageOutcome]]]:
        """Yield some lines after the other, each with the outcomes of its images by index.

        Raises:
            StorageAwayError: A bucket or host fails as a whole.
            WorkerError: The model or the device failed.
            LabelyardError: The token stopped the attempt.
        """
        chunk = min(CHUNK, self.window)
        left = iter(lines)
        on_way: deque[SentLines] = deque()
        by_address: dict[str, Future[Embedded]] = {}
        done = sent = 0
        try:
            while True:
                while sent - done < self.window and (some := list(islice(left, chunk))):
                    self.note_sent(done, sent + len(some))
                    on_way.append(self._send(some, by_address))
                    sent += len(some)
                if not on_way:
                    return
                oldest = on_way[0]
                found = self._wait(oldest)
                on_way.popleft()
                done += len(oldest.lines)
                yield oldest.lines, found
        finally:
            for one in on_way:
                for future in one.futures.values():
                    future.cancel()

    def _send(self, lines: PlanLines, by_address: "dict[str, Future[Embedded]]") -> SentLines:
        """Send the images of some lines; an address that the shard has had is not sent again."""
        sent = SentLines(lines)
        for index, line in enumerate(lines):
            if isinstance(line, PlannedLine):
                sent.images[index] = to_image(line)
        first = {
            index: image for index, image in sent.images.items() if image.uri not in by_address
        }
        unique = {image.uri: image for image in first.values()}
        futures = self._embed(list(unique.values()))
        by_address.update(zip(unique, futures, strict=True))
        fresh = set(unique)
        for index, image in sent.images.items():
            sent.futures[index] = by_address[image.uri]
            if image.uri in fresh:
                fresh.discard(image.uri)
            else:
                sent.repeated.add(index)
        return sent

    def _embed(self, images: list[ImageRef]) -> "list[Future[Embedded]]":
        return self.embedder.embed_images(
            images,
            tenant=self.part.tenant,
            job_id=self.part.job_id,
            priority=Priority.BULK,
            is_wanted=self.token.check,
        )

    def _wait(self, sent: SentLines) -> dict[int, ImageOutcome]:
        """Wait for the outcomes of some lines; an image that storage failed is tried again."""
        found = {
            index: wait_for_image(image, sent.futures[index], self.token)
            for index, image in sent.images.items()
        }
        raise_if_storage_is_away(list(found.values()))
        for _ in range(TRIES - 1):
            failed = [index for index, one in found.items() if isinstance(one, TransientError)]
            if not failed:
                break
            self._pause()
            futures = self._embed([sent.images[index] for index in failed])
            for index, future in zip(failed, futures, strict=True):
                found[index] = wait_for_image(sent.images[index], future, self.token)
            raise_if_storage_is_away(list(found.values()))
        new = [index for index in found if index not in sent.repeated]
        self.embedder.keep([sent.images[index] for index in new], [found[index] for index in new])
        return found

    def _pause(self) -> None:
        """Wait a moment, unless the token stops the attempt."""
        until = time.monotonic() + RETRY_PAUSE_S
        while (left_s := until - time.monotonic()) > 0:
            self.token.check()
            time.sleep(min(0.1, left_s))


def to_image(line: PlannedLine) -> ImageRef:
    """Return the image that a planned line names; the planner has checked it."""
    return ImageRef.model_construct(id=line.custom_id, uri=line.uri, version_id=None, etag=None)
