"""Each prompt is encoded once for all callers, and memory is bounded."""

import gc
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Literal

import numpy as np
import pytest

from labelyard.errors import JobCancelledError
from labelyard.label_sets import as_label_set, label_set_digest
from labelyard.messages import Label, LabelSet
from labelyard_worker.jobs.cancellation import Token
from labelyard_worker.vision.ensembles import group_ensembles
from labelyard_worker.vision.label_index import LabelIndex
from labelyard_worker.vision.lru import ByteLru
from labelyard_worker.vision.scoring import Floats
from tests.support.waiting import wait_until

DIM = 32
MIB = 1 << 20


class RecordingEncoder:
    """Gives each prompt a vector of its own, and records the prompts it got."""

    scoring: Literal["softmax", "sigmoid"] = "softmax"
    dim = DIM

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.fail_next = False
        self.gate = threading.Event()
        self.gate.set()

    @property
    def encoded(self) -> list[str]:
        """All prompts, in the order in which they came."""
        return [prompt for call in self.calls for prompt in call]

    def text_embeds(self, prompts: Sequence[str]) -> Floats:
        """Encode, or fail when the test wants that."""
        self.calls.append(list(prompts))
        assert self.gate.wait(5)
        if self.fail_next:
            self.fail_next = False
            raise RuntimeError("the text tower broke")
        return np.stack([vector_of(prompt) for prompt in prompts])


def vector_of(prompt: str) -> Floats:
    """Draw the unit vector that belongs to *prompt*."""
    drawn = np.random.default_rng(list(prompt.encode())).normal(size=DIM)
    unit: Floats = (drawn / np.linalg.norm(drawn)).astype(np.float32)
    return unit


@pytest.fixture
def encoder() -> RecordingEncoder:
    return RecordingEncoder()


@pytest.fixture
def index(encoder: RecordingEncoder) -> Iterator[LabelIndex]:
    with closing(LabelIndex(encoder, capacity_bytes=4 * MIB)) as index:
        yield index


def test_a_label_set_is_encoded_once(encoder: RecordingEncoder, index: LabelIndex) -> None:
    label_set = as_label_set(["cat", "dog"])

    first, again = index.matrix(label_set), index.matrix(as_label_set(["cat", "dog"]))

    assert again is first
    assert encoder.encoded == ["This is a photo of cat.", "This is a photo of dog."]
    assert first.digest == label_set_digest(label_set)
    assert np.array_equal(first.text_embeds[1], vector_of("This is a photo of dog."))


def test_sets_that_share_prompts_share_vectors(
    encoder: RecordingEncoder, index: LabelIndex
) -> None:
    index.matrix(as_label_set(["cat", "dog"]))

    index.matrix(as_label_set(["dog", "cow"], temperature=2.0))

    assert encoder.encoded[2:] == ["This is a photo of cow."]


def test_several_prompts_become_one_mean_direction(
    encoder: RecordingEncoder, index: LabelIndex
) -> None:
    label_set = LabelSet(
        labels=(Label(name="cat"), Label(name="dog", prompts=("a puppy", "a hound"))),
        templates=("a photo of {}", "a drawing of {}"),
    )

    rows = index.matrix(label_set).text_embeds

    for row, prompts in zip(
        rows, [("a photo of cat", "a drawing of cat"), ("a puppy", "a hound")], strict=True
    ):
        mean = vector_of(prompts[0]) + vector_of(prompts[1])
        assert row == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)
    assert "a photo of dog" not in encoder.encoded


def test_abstain_prompts_are_rows_of_their_own_and_whole_sentences(index: LabelIndex) -> None:
    label_set = as_label_set(["cat"], abstain=("nothing at all", "a blank wall"))

    matrix = index.matrix(label_set)

    assert matrix.n_labels == 1
    assert np.array_equal(matrix.text_embeds[1], vector_of("nothing at all"))
    assert np.array_equal(matrix.text_embeds[2], vector_of("a blank wall"))


def test_braces_in_a_label_are_letters(encoder: RecordingEncoder, index: LabelIndex) -> None:
    index.matrix(as_label_set(["a {} sign"], templates=("see {}!",)))

    assert encoder.encoded == ["see a {} sign!"]


def test_threads_that_ask_at_once_wait_for_one_encoding(
    encoder: RecordingEncoder, index: LabelIndex
) -> None:
    label_set = as_label_set([f"label {number}" for number in range(20)])
    encoder.gate.clear()

    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(index.matrix, label_set) for _ in range(8)]
        encoder.gate.set()
        matrices = [future.result(timeout=5) for future in asked]

    assert all(matrix is matrices[0] for matrix in matrices)
    assert len(encoder.encoded) == 20


def test_a_failure_is_heard_by_all_who_wait_and_the_next_call_tries_again(
    encoder: RecordingEncoder, index: LabelIndex
) -> None:
    encoder.fail_next = True

    with pytest.raises(RuntimeError, match="text tower broke"):
        index.matrix(as_label_set(["cat"]))

    assert index.matrix(as_label_set(["cat"])).names == ("cat",)


def test_a_large_set_is_encoded_in_parts_so_that_a_small_one_can_pass(
    encoder: RecordingEncoder, index: LabelIndex
) -> None:
    names = [f"label {number}" for number in range(10_000)]

    matrix = index.matrix(as_label_set(names))

    assert max(len(call) for call in encoder.calls) <= 64
    assert len(encoder.encoded) == 10_000
    assert np.array_equal(matrix.text_embeds[9_999], vector_of("This is a photo of label 9999."))


def test_what_was_not_used_for_longest_is_dropped_first(encoder: RecordingEncoder) -> None:
    sets = [as_label_set([f"{name} {n}" for n in range(100)]) for name in ("a", "b", "c")]
    with closing(LabelIndex(encoder, capacity_bytes=MIB)) as unbounded:
        one_set = unbounded.matrix(sets[0]).held_bytes
    with closing(LabelIndex(encoder, capacity_bytes=2 * 2 * one_set + 100)) as index:
        first = index.matrix(sets[0])
        second = index.matrix(sets[1])
        assert index.matrix(sets[0]) is first
        index.matrix(sets[2])

        assert index.matrix(sets[0]) is first
        assert index.matrix(sets[1]) is not second


def test_memory_holds_no_more_than_its_bound() -> None:
    """Counted by Python itself, with sets whose vectors come out of batches."""
    bound = 4 * MIB
    encoder = RecordingEncoder()
    with closing(LabelIndex(encoder, capacity_bytes=bound)) as index:
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for number in range(12):
                index.matrix(as_label_set([f"{number} {n}" for n in range(1_000)]))
                encoder.calls.clear()
            gc.collect()
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert 0.8 * bound < index.held_bytes <= bound
        assert after - before < 1.1 * bound


def test_a_registered_set_is_read_by_one_job_and_only_once(
    encoder: RecordingEncoder, index: LabelIndex
) -> None:
    label_set = as_label_set(["cat", "dog"])
    reads: list[int] = []

    def load() -> LabelSet:
        reads.append(1)
        return label_set

    digest = label_set_digest(label_set)
    encoder.gate.clear()
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(index.registered, digest, load) for _ in range(4)]
        encoder.gate.set()
        matrices = {id(future.result(timeout=5)) for future in asked}

    assert len(matrices) == 1
    assert index.registered(digest, load).names == ("cat", "dog")
    assert len(reads) == 1


def test_a_job_that_ends_stops_the_encoding_that_nobody_else_needs(
    encoder: RecordingEncoder, index: LabelIndex
) -> None:
    token = Token("job", timeout_s=60, expires_in_s=None)
    encoder.gate.clear()

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(index.matrix, large_set(), token=token)
        wait_until(lambda: encoder.calls)
        token.stop(JobCancelledError("job"))
        with pytest.raises(JobCancelledError):
            asked.result(timeout=5)
        encoder.gate.set()

    index.matrix(as_label_set(["cat"]))
    assert len(encoder.encoded) <= 64 + 1  # the pass that ran, and the other set


def test_the_job_that_waits_goes_on_where_the_one_before_it_ended(
    encoder: RecordingEncoder, index: LabelIndex
) -> None:
    token = Token("job", timeout_s=60, expires_in_s=None)
    encoder.gate.clear()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(index.matrix, large_set(), token=token)
        wait_until(lambda: encoder.calls)
        second = pool.submit(index.matrix, large_set())
        wait_until(lambda: next(iter(index._builds.values())).waiters == 2)
        token.stop(JobCancelledError("job"))
        with pytest.raises(JobCancelledError):
            first.result(timeout=5)
        encoder.gate.set()
        matrix = second.result(timeout=5)

    assert matrix.n_labels == 500
    assert np.array_equal(matrix.text_embeds[499], vector_of("This is a photo of 499."))
    assert sorted(encoder.encoded) == sorted(f"This is a photo of {n}." for n in range(500))
    assert index._builds == {}


def test_a_small_set_of_an_interactive_job_passes_a_large_one(
    encoder: RecordingEncoder, index: LabelIndex
) -> None:
    encoder.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        large = pool.submit(index.matrix, large_set())
        wait_until(lambda: encoder.calls)
        small = pool.submit(index.matrix, as_label_set(["cat"]), priority="interactive")
        wait_until(lambda: "This is a photo of cat." in index.vectors._wanted)
        encoder.gate.set()
        small.result(timeout=5)
        large.result(timeout=5)

    assert encoder.calls[1] == ["This is a photo of cat."]


def test_sets_of_like_priority_share_passes(encoder: RecordingEncoder, index: LabelIndex) -> None:
    sets = [as_label_set([f"{name} {number}" for number in range(10)]) for name in "abcd"]
    encoder.gate.clear()
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(index.matrix, as_label_set(["first"]))]
        wait_until(lambda: encoder.calls)
        asked += [pool.submit(index.matrix, label_set) for label_set in sets]
        wait_until(lambda: len(index.vectors._wanted) == 41)
        encoder.gate.set()
        for future in asked:
            future.result(timeout=5)

    assert [len(call) for call in encoder.calls] == [1, 40]


def large_set() -> LabelSet:
    return as_label_set([str(number) for number in range(500)])


def test_a_cache_counts_bytes_and_keeps_one_value_whatever_its_size() -> None:
    cache: ByteLru[str, str] = ByteLru(10)

    cache.put("a", "small", size_bytes=4)
    cache.put("b", "small", size_bytes=4)
    cache.put("b", "larger", size_bytes=6)
    assert (len(cache), cache.held_bytes) == (2, 10)
    cache.put("c", "too large", size_bytes=99)

    assert (len(cache), cache.held_bytes) == (1, 99)
    assert cache.get("c") == "too large"
    assert cache.get("a") is None


def test_ensembles_are_grouped_without_being_torn_apart() -> None:
    ensembles = [tuple(f"{label} {n}" for n in range(3)) for label in range(5)]

    groups = list(group_ensembles(ensembles, most_prompts=7))

    assert [len(group) for group in groups] == [2, 2, 1]
    assert [ensemble for group in groups for ensemble in group] == ensembles
