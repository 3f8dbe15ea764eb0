"""Vectors of prompts: known ones from memory, missing ones in passes that all label sets share."""

import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

import numpy as np

from labelyard.queues import Priority
from labelyard_worker.vision.batch_queue import BatchAnswer
from labelyard_worker.vision.batcher import Batcher
from labelyard_worker.vision.forward_passes import report_text_pass
from labelyard_worker.vision.lru import ByteLru
from labelyard_worker.vision.scoring import Floats

# Prompts of one pass; a small label set waits for at most the present pass of a large one.
PROMPTS_IN_A_PASS: Final = 64
# Label sets ask for two passes at a time, so that many thousands of jobs fit.
QUEUE_CAPACITY: Final = 65_536
# Of a vector in memory, besides its numbers and its prompt: array, entry, dictionary slot.
ENTRY_BYTES: Final = 400


class TextEncoder(Protocol):
    """The part of a checkpoint that encodes prompts."""

    def text_embeds(self, prompts: Sequence[str]) -> Floats:
        """Encode *prompts*, shape (prompts, dim), unit length."""


@dataclass(eq=False)
class WantedPrompt:
    """A prompt that at least one label set waits for.

    Attributes:
        answer: Its vector, shape (dim,).
        claims: Label sets that wait for it; without any it is taken out of the queue.
        call: Its place in the queue of the text tower.
    """

    prompt: str
    priority: Priority
    answer: "Future[Floats]" = field(default_factory=Future)
    claims: int = 0
    call: "Future[BatchAnswer[Floats]] | None" = None


class TextVectors:
    """Encodes each prompt once for all label sets that have it, interactive ones first.

    Safe to call from several threads. Memory is bounded in bytes.
    """

    def __init__(self, encoder: TextEncoder, *, capacity_bytes: int) -> None:
        """Start the thread that encodes.

        Args:
            encoder: Encodes what is not known.
            capacity_bytes: Most bytes of vectors kept in memory.
        """
        self._known: ByteLru[str, Floats] = ByteLru(capacity_bytes)
        self._wanted: dict[str, WantedPrompt] = {}
        self._lock = threading.Lock()
        self._batcher: Batcher[str, Floats] = Batcher(
            partial(encode, encoder),
            max_batch_size=PROMPTS_IN_A_PASS,
            queue_capacity=QUEUE_CAPACITY,
            is_mixed=False,  # a pass of 64 takes 5 times as long as one of 5
            on_pass=report_text_pass,
            name="labelyard-text",
        )
        self._batcher.start()

    @property
    def is_alive(self) -> bool:
        """Return whether prompts that are requested will be encoded."""
        return self._batcher.is_alive

    @property
    def busy_for_s(self) -> float:
        """Seconds that the present pass of the text tower has been running; 0 when idle."""
        return self._batcher.busy_for_s

    @property
    def held_bytes(self) -> int:
        """Bytes of vectors in memory."""
        return self._known.held_bytes

    def look_up(self, prompts: Sequence[str]) -> dict[str, Floats]:
        """Return the vectors that are in memory."""
        found = ((prompt, self._known.get(prompt)) for prompt in prompts)
        return {prompt: vector for prompt, vector in found if vector is not None}

    def remember(self, vectors: dict[str, Floats]) -> None:
        """Keep vectors in memory."""
        for prompt, vector in vectors.items():
            size_bytes = vector.nbytes + sys.getsizeof(prompt) + ENTRY_BYTES
            self._known.put(prompt, vector, size_bytes=size_bytes)

    def request(self, prompts: Sequence[str], *, priority: Priority) -> list[WantedPrompt]:
        """Queue the prompts that are neither known nor queued; ``release`` them in the end.

        Returns:
            One for each of *prompts*, in order.

        Raises:
            DeviceFailedError: The model cannot run any more.
            TransientError: The queue is full, or the worker is stopping.
        """
        with self._lock:
            claimed = [self._claim(prompt, priority) for prompt in prompts]
            to_queue = [one for one in claimed if one.call is None and not one.answer.done()]
            try:
                calls = self._batcher.submit_all(
                    [one.prompt for one in to_queue], priority=priority
                )
            except BaseException as error:
                self._release(claimed)
                self._reject([one for one in to_queue if one.claims], error)
                raise
            for one, call in zip(to_queue, calls, strict=True):
                one.call = call
        for one, call in zip(to_queue, calls, strict=True):
            call.add_done_callback(partial(self._finish, one))
        return claimed

    def release(self, claimed: Sequence[WantedPrompt]) -> None:
        """Release prompts; those that no other label set waits for leave the queue."""
        with self._lock:
            self._release(claimed)

    def close(self) -> None:
        """Stop after the present pass; waiting callers get an error."""
        self._batcher.close(timeout_s=5.0)

    def _claim(self, prompt: str, priority: Priority) -> WantedPrompt:
        """Add a claim on *prompt*; an interactive claim moves it to the front."""
        one = self._wanted.get(prompt)
        if one is None:
            one = WantedPrompt(prompt, priority)
            if (known := self._known.get(prompt)) is not None:
                one.answer.set_result(known)
            else:
                self._wanted[prompt] = one
        elif priority == Priority.INTERACTIVE and one.priority == Priority.BULK:
            one.priority = priority
            if one.call is not None and one.call.cancel():
                one.call = None
        one.claims += 1
        return one

    def _release(self, claimed: Sequence[WantedPrompt]) -> None:
        for one in claimed:
            one.claims -= 1
            is_withdrawn = one.claims == 0 and (one.call is None or one.call.cancel())
            if is_withdrawn and self._wanted.get(one.prompt) is one:
                del self._wanted[one.prompt]

    def _reject(self, wanted: Sequence[WantedPrompt], error: BaseException) -> None:
        """Fail prompts that others wait for, and that could not be moved to the front."""
        for one in wanted:
            del self._wanted[one.prompt]
            one.answer.set_exception(error)

    def _finish(self, one: WantedPrompt, call: "Future[BatchAnswer[Floats]]") -> None:
        """Resolve the future of the prompt for all its callers; runs on the thread that encodes."""
        if call.cancelled():  # withdrawn, or moved to the front
            return
        error = call.exception()
        with self._lock:
            if error is None:
                self.remember({one.prompt: call.result().result})
            if self._wanted.get(one.prompt) is one:
                del self._wanted[one.prompt]
        if error is None:
            one.answer.set_result(call.result().result)
        else:
            one.answer.set_exception(error)


def encode(encoder: TextEncoder, prompts: Sequence[str]) -> list[Floats]:
    """Encode *prompts* in one pass; each vector has memory of its own.

    Raises:
        FloatingPointError: A vector is not finite.
    """
    vectors = encoder.text_embeds(prompts)
    if not np.isfinite(vectors).all():
        raise FloatingPointError("a text embedding is not finite: the weights are damaged")
    return [vector.copy() for vector in vectors]  # a row would keep its whole batch in memory
