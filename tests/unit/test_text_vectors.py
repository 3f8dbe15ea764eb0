"""Prompts of all label sets share passes; each is encoded once, and withdrawn if nobody waits."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing

import numpy as np
import pytest

from labelyard.errors import DeviceFailedError, TransientError
from labelyard.queues import Priority
from labelyard_worker.vision import text_vectors
from labelyard_worker.vision.scoring import Floats
from labelyard_worker.vision.text_vectors import TextVectors
from tests.support.waiting import wait_until


class GatedEncoder:
    """Encodes a prompt as its length, when the test lets it."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.gate = threading.Event()

    def text_embeds(self, prompts: Sequence[str]) -> Floats:
        """Fail on prompts with the word ``fail``."""
        self.calls.append(list(prompts))
        assert self.gate.wait(5)
        if "lose the device" in prompts:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        if "fail" in prompts:
            raise ValueError("a prompt that fails")
        value = [np.nan if prompt == "nan" else float(len(prompt)) for prompt in prompts]
        return np.array(value, dtype=np.float32)[:, None]

    @property
    def encoded(self) -> list[str]:
        """All prompts, in the order in which they came."""
        return [prompt for call in self.calls for prompt in call]


@pytest.fixture
def encoder() -> GatedEncoder:
    return GatedEncoder()


@pytest.fixture
def vectors(encoder: GatedEncoder) -> Iterator[TextVectors]:
    with closing(TextVectors(encoder, capacity_bytes=1 << 20)) as vectors:
        yield vectors
        encoder.gate.set()


def occupy(vectors: TextVectors, encoder: GatedEncoder) -> None:
    """Have the encoder busy with one prompt."""
    vectors.request(["first"], priority=Priority.BULK)
    wait_until(lambda: encoder.calls)


def test_a_prompt_that_two_sets_want_is_encoded_once(
    vectors: TextVectors, encoder: GatedEncoder
) -> None:
    one = vectors.request(["a", "bb"], priority=Priority.BULK)
    other = vectors.request(["bb", "ccc"], priority=Priority.BULK)
    encoder.gate.set()

    lengths = [float(each.answer.result(timeout=5)[0]) for each in (*one, *other)]

    assert lengths == [1, 2, 2, 3]
    assert sorted(encoder.encoded) == ["a", "bb", "ccc"]
    [known] = vectors.request(["bb"], priority=Priority.BULK)
    assert known.answer.done()


def test_an_interactive_set_moves_prompts_that_it_shares_to_the_front(
    vectors: TextVectors, encoder: GatedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    occupy(vectors, encoder)
    many = [f"prompt {number}" for number in range(200)]
    bulk = vectors.request(many, priority=Priority.BULK)

    [shared] = vectors.request(many[-1:], priority=Priority.INTERACTIVE)
    encoder.gate.set()
    for each in (shared, *bulk):
        each.answer.result(timeout=5)

    assert encoder.calls[1] == many[-1:]
    assert sorted(encoder.encoded) == sorted(["first", *many])


def test_bulk_prompts_never_wait_for_ever(vectors: TextVectors, encoder: GatedEncoder) -> None:
    occupy(vectors, encoder)
    bulk = vectors.request([Priority.BULK], priority=Priority.BULK)
    interactive = vectors.request([str(n) for n in range(64 * 9)], priority=Priority.INTERACTIVE)
    encoder.gate.set()
    for each in (*bulk, *interactive):
        each.answer.result(timeout=5)

    assert encoder.calls.index([Priority.BULK]) == 8


def test_a_prompt_leaves_the_queue_when_nobody_waits_for_it(
    vectors: TextVectors, encoder: GatedEncoder
) -> None:
    occupy(vectors, encoder)
    one = vectors.request(["a", "shared"], priority=Priority.BULK)
    other = vectors.request(["shared"], priority=Priority.BULK)

    vectors.release(one)
    encoder.gate.set()
    other[0].answer.result(timeout=5)

    assert encoder.encoded == ["first", "shared"]
    [again] = vectors.request(["a"], priority=Priority.BULK)
    assert again.answer.result(timeout=5)[0] == 1


@pytest.mark.parametrize(("bad", "error"), [("fail", ValueError), ("nan", FloatingPointError)])
def test_a_prompt_that_fails_costs_only_the_sets_that_want_it(
    vectors: TextVectors, encoder: GatedEncoder, bad: str, error: type[Exception]
) -> None:
    occupy(vectors, encoder)
    good = vectors.request(["a", "bb"], priority=Priority.BULK)
    [failing] = vectors.request([bad], priority=Priority.BULK)
    encoder.gate.set()

    with pytest.raises(error):
        failing.answer.result(timeout=5)
    assert [float(each.answer.result(timeout=5)[0]) for each in good] == [1, 2]


def test_a_lost_device_fails_all_who_wait_and_all_who_come(
    vectors: TextVectors, encoder: GatedEncoder
) -> None:
    occupy(vectors, encoder)
    waiting = vectors.request(["a", "lose the device"], priority=Priority.BULK)
    encoder.gate.set()

    for each in waiting:
        with pytest.raises(DeviceFailedError):
            each.answer.result(timeout=5)
    with pytest.raises(DeviceFailedError):
        vectors.request(["b"], priority=Priority.BULK)
    assert not vectors.is_alive


def test_a_full_queue_refuses_a_request_as_a_whole_and_forgets_it(
    vectors: TextVectors, encoder: GatedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors._batcher, "_queue_capacity", 3)
    occupy(vectors, encoder)
    vectors.request(["a", "b"], priority=Priority.BULK)

    with pytest.raises(TransientError):
        vectors.request(["c", "d"], priority=Priority.INTERACTIVE)

    encoder.gate.set()
    [again] = vectors.request(["c"], priority=Priority.BULK)
    assert again.answer.result(timeout=5)[0] == 1
    assert "d" not in encoder.encoded


def test_a_prompt_that_cannot_be_moved_to_the_front_fails_for_all_who_wait(
    vectors: TextVectors, encoder: GatedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    occupy(vectors, encoder)
    [waiting] = vectors.request(["a"], priority=Priority.BULK)
    monkeypatch.setattr(vectors._batcher, "_queue_capacity", 0)

    with pytest.raises(TransientError):
        vectors.request(["a"], priority=Priority.INTERACTIVE)

    with pytest.raises(TransientError):
        waiting.answer.result(timeout=0)
    monkeypatch.undo()
    encoder.gate.set()
    assert vectors.request(["a"], priority=Priority.BULK)[0].answer.result(timeout=5)[0] == 1


def test_closing_answers_whoever_waits(encoder: GatedEncoder) -> None:
    vectors = TextVectors(encoder, capacity_bytes=1 << 20)
    occupy(vectors, encoder)
    waiting = vectors.request(
        [str(n) for n in range(text_vectors.PROMPTS_IN_A_PASS)], priority=Priority.BULK
    )
    closer = threading.Thread(target=vectors.close)

    closer.start()
    for each in waiting:
        with pytest.raises(TransientError, match="stopping"):
            each.answer.result(timeout=5)

    encoder.gate.set()
    closer.join()
