"""Label sets to matrices of text embeddings: encoded once, kept, shared."""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import numpy as np

from labelyard.errors import LabelSetExamplesError, LabelyardError
from labelyard.evaluation.example_scores import TaughtLabels
from labelyard.label_sets import label_set_digest
from labelyard.messages import LabelSet
from labelyard.queues import Priority
from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.metrics import LABEL_SETS, TEXT_CACHE
from labelyard_worker.vision.ensembles import ensembles_of, group_ensembles, mean_direction
from labelyard_worker.vision.learned_sets import LearnedSets
from labelyard_worker.vision.lru import ByteLru
from labelyard_worker.vision.scoring import Floats, LabelMatrix
from labelyard_worker.vision.text_cache import TextCache
from labelyard_worker.vision.text_vectors import (
    PROMPTS_IN_A_PASS,
    TextEncoder,
    TextVectors,
    WantedPrompt,
)
from labelyard_worker.vision.titles import TitleIndex

__all__ = ["LabelEncoder", "LabelIndex", "LabelMatrix"]

PROMPTS_LOOKED_UP_AT_ONCE: Final = 1_024
# One is encoded while the next waits; more would keep other label sets waiting.
PASSES_REQUESTED_AT_ONCE: Final = 2


class LabelEncoder(TextEncoder, Protocol):
    """The part of a checkpoint that the index needs."""

    @property
    def scoring(self) -> Literal["softmax", "sigmoid"]:
        """Scoring that the checkpoint was trained for."""

    @property
    def dim(self) -> int:
        """Length of a vector."""


@dataclass(eq=False)
class MatrixBuild:
    """A matrix in the making; one job at a time builds it, the others wait.

    A builder whose job ends leaves what is done to the next one.

    Attributes:
        digest: Digest of the label set.
        load: Reads the label set.
        is_registered: Whether its vectors are worth keeping for long.
        waiters: Jobs that want it, the builder included.
        priority: ``interactive`` as soon as one of these is.
        turn: What the present builder came to: the matrix, or ``None`` if its job ended.
        rows: Vectors of labels and abstain prompts, shape (labels + abstain, dim).
        first: Number of rows that are done.
    """

    digest: str
    load: Callable[[], LabelSet]
    is_registered: bool
    waiters: int = 0
    priority: Priority = Priority.BULK
    turn: "Future[LabelMatrix | None] | None" = None
    label_set: LabelSet | None = None
    taught: TaughtLabels | None = None
    rows: Floats = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    groups: Iterator[list[tuple[str, ...]]] | None = None
    group: Sequence[tuple[str, ...]] = ()
    first: int = 0

    def next_group(self) -> Sequence[tuple[str, ...]] | None:
        """Go on with the labels that an earlier builder left, then with the next ones."""
        if not self.group and self.groups is not None:
            self.group = next(self.groups, ())
        return self.group or None

    def add_rows(self, known: Mapping[str, Floats]) -> None:
        """Write the vectors of the present group's labels."""
        for row, ensemble in enumerate(self.group, start=self.first):
            self.rows[row] = mean_direction(np.stack([known[prompt] for prompt in ensemble]))
        self.first += len(self.group)
        self.group = ()


class LabelIndex:
    """Builds and caches each label set's matrix; the text tower encodes each prompt once."""

    def __init__(
        self,
        checkpoint: LabelEncoder,
        *,
        capacity_bytes: int,
        store: TextCache | None = None,
        learned: LearnedSets | None = None,
        tree_temperature: float = 1.0,
        titles: TitleIndex | None = None,
    ) -> None:
        """Start empty.

        Args:
            checkpoint: Encodes what is not known.
            capacity_bytes: Most bytes kept, half of them for matrices and half for
                the vectors of single prompts, which sets share.
            store: What other workers have encoded.
            learned: Opens what label sets learned; without it such sets are refused.
            tree_temperature: See ``LabelMatrix.of``.
            titles: Encodes texts beside pictures; without it they are ignored.
        """
        self._checkpoint = checkpoint
        self._store = store
        self._learned = learned
        self._tree_temperature = tree_temperature
        self._titles = titles
        self._matrices: ByteLru[str, LabelMatrix] = ByteLru(capacity_bytes // 2)
        self._builds: dict[str, MatrixBuild] = {}
        self._lock = threading.Lock()
        self.vectors = TextVectors(checkpoint, capacity_bytes=capacity_bytes // 2)

    @property
    def held_bytes(self) -> int:
        """Bytes of matrices and vectors in memory."""
        return self._matrices.held_bytes + self.vectors.held_bytes

    def matrix(
        self, label_set: LabelSet, *, token: Token | None = None, priority: Priority = Priority.BULK
    ) -> LabelMatrix:
        """Find or make the matrix of a label set that a job carries.

        Raises:
            LabelyardError: The token's job may not go on; other jobs that want the same
                set are not touched by it. Or the model failed.
        """
        digest = label_set_digest(label_set)
        build = MatrixBuild(digest, lambda: label_set, is_registered=False)
        return self._find_or_build(build, token or _endless(), priority)

    def registered(
        self,
        digest: str,
        load: Callable[[], LabelSet],
        *,
        token: Token | None = None,
        priority: Priority = Priority.BULK,
    ) -> LabelMatrix:
        """Find or make the matrix of a registered label set.

        Args:
            digest: Digest in the job's reference.
            load: Reads the set; called by one job only, and only if there is no matrix.

        Raises:
            LabelyardError: As ``matrix``, or what *load* raises.
        """
        build = MatrixBuild(digest, load, is_registered=True)
        return self._find_or_build(build, token or _endless(), priority)

    def close(self) -> None:
        """Stop encoding."""
        self.vectors.close()
        if self._titles is not None:
            self._titles.close()

    def _find_or_build(self, new: MatrixBuild, token: Token, priority: Priority) -> LabelMatrix:
        if (known := self._matrices.get(new.digest)) is not None:
            LABEL_SETS.labels("hit").inc()
            return known
        LABEL_SETS.labels("miss").inc()
        build = self._join(new, priority)
        try:
            while True:
                token.check()
                with self._lock:
                    is_ours = build.turn is None
                    turn = build.turn = build.turn or Future()
                made = self._build(build, turn, token) if is_ours else token.wait(turn)
                if made is not None:
                    return made
        finally:
            self._leave(build)

    def _join(self, new: MatrixBuild, priority: Priority) -> MatrixBuild:
        with self._lock:
            build = self._builds.setdefault(new.digest, new)
            build.waiters += 1
            if priority == Priority.INTERACTIVE:
                build.priority = priority
            return build

    def _leave(self, build: MatrixBuild) -> None:
        with self._lock:
            build.waiters -= 1
            if not build.waiters and self._builds.get(build.digest) is build:
                del self._builds[build.digest]

    def _build(
        self, build: MatrixBuild, turn: "Future[LabelMatrix | None]", token: Token
    ) -> LabelMatrix:
        """Take a turn as the builder; waiting jobs get the matrix, the error, or the next turn."""
        try:
            made = self._matrices.get(build.digest) or self._make(build, token)
        except BaseException as error:
            with self._lock:
                is_only_ours = _is_over(token)
                if is_only_ours:
                    build.turn = None
                else:
                    self._builds.pop(build.digest, None)
            if is_only_ours:
                turn.set_result(None)
            else:
                turn.set_exception(error)
            raise
        self._matrices.put(build.digest, made, size_bytes=made.held_bytes)
        turn.set_result(made)
        return made

    def _make(self, build: MatrixBuild, token: Token) -> LabelMatrix:
        """Go on with the matrix, a group of labels at a time."""
        label_set = build.label_set or self._begin(build)
        while build.next_group() is not None:
            token.check()
            prompts = [prompt for ensemble in build.group for prompt in ensemble]
            build.add_rows(self._gather(prompts, build, token))
        return LabelMatrix.of(
            label_set,
            build.rows,
            digest=build.digest,
            trained_scoring=self._checkpoint.scoring,
            taught=build.taught,
            tree_temperature=self._tree_temperature,
            titles=None
            if self._titles is None
            else self._titles.labels_of(label_set, token=token, priority=build.priority),
        )

    def title_vectors(
        self, texts: Sequence[str | None], labels: LabelMatrix, *, token: Token, priority: Priority
    ) -> list[Floats | None]:
        """Return the vector of the text beside each image; none if the set does not read them.

        Raises:
            LabelyardError: As ``matrix``.
        """
        if self._titles is None or labels.titles is None:
            return []
        return self._titles.embed(texts, token=token, priority=priority)

    def _begin(self, build: MatrixBuild) -> LabelSet:
        label_set = build.load()
        build.taught = self._open_learned(label_set)
        rows = len(label_set.labels) + len(label_set.abstain)
        build.rows = np.empty((rows, self._checkpoint.dim), dtype=np.float32)
        build.groups = group_ensembles(
            ensembles_of(label_set), most_prompts=PROMPTS_LOOKED_UP_AT_ONCE
        )
        build.label_set = label_set
        return label_set

    def _open_learned(self, label_set: LabelSet) -> TaughtLabels | None:
        if label_set.learned is None:
            return None
        if self._learned is None:
            raise LabelSetExamplesError("this worker opens no learned label sets")
        return self._learned.open(label_set)

    def _gather(
        self, prompts: Sequence[str], build: MatrixBuild, token: Token
    ) -> dict[str, Floats]:
        """Gather the vectors of *prompts*: from memory, from Redis, else from the model."""
        wanted = list(dict.fromkeys(prompts))
        known = self.vectors.look_up(wanted)
        missing = [prompt for prompt in wanted if prompt not in known]
        TEXT_CACHE.labels("memory").inc(len(known))
        if missing and self._store is not None:
            found = self._store.get_many(missing, is_registered=build.is_registered)
            self.vectors.remember(found)
            known |= found
            TEXT_CACHE.labels("shared").inc(len(found))
            missing = [prompt for prompt in missing if prompt not in found]
        TEXT_CACHE.labels("miss").inc(len(missing))
        if missing:
            self._encode(missing, known, build, token)
        return known

    def _encode(
        self, missing: Sequence[str], known: dict[str, Floats], build: MatrixBuild, token: Token
    ) -> None:
        """Add the vectors of *missing* to *known*, two passes ahead of the text tower."""
        requested: deque[list[WantedPrompt]] = deque()
        try:
            for first in range(0, len(missing), PROMPTS_IN_A_PASS):
                part = missing[first : first + PROMPTS_IN_A_PASS]
                requested.append(self.vectors.request(part, priority=build.priority))
                if len(requested) == PASSES_REQUESTED_AT_ONCE:
                    self._collect(requested, known, build, token)
            while requested:
                self._collect(requested, known, build, token)
        finally:
            for part_requested in requested:
                self.vectors.release(part_requested)

    def _collect(
        self,
        requested: deque[list[WantedPrompt]],
        known: dict[str, Floats],
        build: MatrixBuild,
        token: Token,
    ) -> None:
        """Wait for the oldest request, and share what it gave with other workers."""
        token.wait(requested[0][-1].answer)  # one wake-up for all that one pass answers
        encoded = {one.prompt: token.wait(one.answer) for one in requested[0]}
        self.vectors.release(requested.popleft())
        known |= encoded
        if self._store is not None:
            self._store.put_many(encoded, is_registered=build.is_registered)


def _endless() -> Token:
    return Token("", timeout_s=math.inf, expires_in_s=None)


def _is_over(token: Token) -> bool:
    try:
        token.check()
    except LabelyardError:
        return True
    return False
