"""The image cache, in memory and on a real Valkey that may be away or slow."""

import dataclasses
import hashlib
import json
import logging
import os
import signal
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pytest
import redis
from pydantic import TypeAdapter

from labelyard.messages import ImageRef, ModelInfo
from labelyard_worker.local.servers import ValkeyServer
from labelyard_worker.pixels import ImageFacts, PixelSpec
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision import image_cache as known_images
from labelyard_worker.vision.image_cache import (
    ENTRY_BYTES,
    ImageCache,
    KnownImage,
    address_of,
    identity_of,
    open_image_cache,
)
from labelyard_worker.vision.scoring import Floats

DIM = 16
NO_VECTOR = np.empty(0, dtype=np.float32)
TTL_S = 600
MIB = 1024 * 1024
SPEC = PixelSpec(resize="shortest_edge", shortest_edge=256, crop=(224, 224))
INFO = ModelInfo(checkpoint="lite", fingerprint="f" * 64, dtype="float32", device="cpu")


def image(uri: str = "s3://pets/cat.jpg", version_id: str | None = None) -> ImageRef:
    return ImageRef(id="1", uri=uri, version_id=version_id)


def known(seed: int = 0, *, etag: str | None = "e1") -> KnownImage:
    """Make a picture's entry; another seed is another content."""
    vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    facts = ImageFacts(sha256=f"{seed:064x}", width=640, height=480, etag=etag)
    stamp = "123 2026-01-01T00:00:00+00:00 v1"
    return KnownImage(vector / np.linalg.norm(vector), facts, stamp)


def is_same(found: KnownImage | None, expected: KnownImage) -> bool:
    """Compare all fields; the vector by its values."""
    if found is None or not np.array_equal(found.image_embeds, expected.image_embeds):
        return False
    found_rest, expected_rest = (
        dataclasses.replace(one, image_embeds=NO_VECTOR) for one in (found, expected)
    )
    return repr(found_rest) == repr(expected_rest)


@pytest.fixture
def options(redis_url: str) -> dict[str, Any]:
    return {"embeddings_url": redis_url, "embeddings_ttl_s": TTL_S, "namespace": "yard"}


def opened(
    options: dict[str, Any],
    *,
    info: ModelInfo = INFO,
    spec: PixelSpec = SPEC,
    dim: int = DIM,
    **more: Any,
) -> ImageCache:
    """Open it as another worker would."""
    return open_image_cache(WorkerSettings(**options | more), info=info, spec=spec, dim=dim)


@pytest.mark.parametrize("etag", ["e1", None, "with a space", 'W/"weak"', "grüße"])
def test_another_worker_finds_what_one_kept(options: dict[str, Any], etag: str | None) -> None:
    made = known(etag=etag)
    with closing(opened(options)) as one, closing(opened(options)) as other:
        one.keep([(image(), made)])

        found = other.look_up([image(), image("s3://pets/unknown.jpg")])

    assert list(found) == [address_of(image())]
    assert is_same(found[address_of(image())], made)


def test_content_is_known_under_whatever_address_it_was(options: dict[str, Any]) -> None:
    made = known()
    with closing(opened(options)) as one, closing(opened(options)) as other:
        one.keep([(image(), made)])
        assert other.embeds_of(made.facts.sha256) is None
        other.look_up([image()])

        embeds = [knower.embeds_of(made.facts.sha256) for knower in (one, other)]

    for found in embeds:
        assert found is not None
        assert np.array_equal(found, made.image_embeds)


def test_everything_in_redis_goes_by_itself(
    options: dict[str, Any], redis_client: redis.Redis
) -> None:
    with closing(opened(options)) as one:
        one.keep([(image(f"s3://pets/{n}.jpg"), known(n % 2)) for n in range(3)])

    ttls = [redis_client.ttl(key) for key in redis_client.scan_iter()]
    assert len(ttls) == 5  # three addresses, two contents
    assert all(TTL_S - 60 < ttl <= TTL_S for ttl in ttls)


@pytest.mark.parametrize(
    "other",
    [
        {"info": INFO.model_copy(update={"dtype": "bfloat16"})},
        {"info": INFO.model_copy(update={"fingerprint": "0" * 64})},
        {"spec": dataclasses.replace(SPEC, resample=2)},
        {"decode": "exact"},
        {"transparency": "drop"},
        {"namespace": "elsewhere"},
        {"dim": DIM + 1},
    ],
    ids=str,
)
def test_what_was_made_otherwise_is_not_seen(
    options: dict[str, Any], other: dict[str, Any]
) -> None:
    with closing(opened(options)) as one, closing(opened(options, **other)) as another:
        one.keep([(image(), known())])

        found = another.look_up([image()])

    assert found == {}


def test_where_a_model_runs_is_no_part_of_its_identity() -> None:
    elsewhere = INFO.model_copy(update={"checkpoint": "copy", "device": "cuda"})

    settings = WorkerSettings()

    assert identity_of(INFO, SPEC, settings) == identity_of(elsewhere, SPEC, settings)


def test_versions_of_an_object_are_known_apart(options: dict[str, Any]) -> None:
    images = [image(), image(version_id="v1"), image(version_id="v2")]
    with closing(opened(options)) as one, closing(opened(options)) as other:
        one.keep((each, known(seed)) for seed, each in enumerate(images[:2]))

        found = [knower.look_up(images) for knower in (one, other)]

    for answers in found:
        assert is_same(answers[address_of(images[0])], known(0))
        assert is_same(answers[address_of(images[1])], known(1))
        assert address_of(images[2]) not in answers


def test_an_address_that_was_written_again_leads_to_the_new_content(
    options: dict[str, Any],
) -> None:
    new = known(2, etag="e2")
    with closing(opened(options)) as one, closing(opened(options)) as third:
        one.keep([(image(), known(1))])

        one.keep([(image(), new)])

        assert is_same(one.look_up([image()])[address_of(image())], new)
        assert is_same(third.look_up([image()])[address_of(image())], new)


def test_an_evicted_embedding_is_unknown_and_not_an_error(
    options: dict[str, Any], redis_client: redis.Redis
) -> None:
    with closing(opened(options)) as one, closing(opened(options)) as other:
        one.keep([(image(), known(1)), (image("s3://pets/dog.jpg"), known(2))])
        [evicted] = redis_client.scan_iter(f"*:embeds:{known(1).facts.sha256}")
        redis_client.delete(evicted)

        found = other.look_up([image(), image("s3://pets/dog.jpg")])

    assert list(found) == ["s3://pets/dog.jpg"]


@pytest.mark.parametrize(
    "value", [b"", b"junk", b"\xff\xfe", b"[]", b"{}", b'{"etag": 1}', b"00 640 480 e1"]
)
def test_an_entry_that_is_none_of_ours_is_passed_over(
    options: dict[str, Any], redis_client: redis.Redis, value: bytes
) -> None:
    with closing(opened(options)) as one, closing(opened(options)) as other:
        one.keep([(image(), known())])
        [address] = redis_client.scan_iter("*:image:*")
        redis_client.set(address, value, ex=60)

        assert other.look_up([image()]) == {}


@dataclasses.dataclass(frozen=True)
class FirstEntry:
    """Entry as the first workers wrote and read it, without a version."""

    etag: str | None
    sha256: str
    width: int
    height: int
    stamp: str = ""


def test_entries_without_a_version_are_read(
    options: dict[str, Any], redis_client: redis.Redis
) -> None:
    made = known()
    first = FirstEntry("e1", made.facts.sha256, 640, 480, made.stamp)
    with closing(opened(options)) as one, closing(opened(options)) as other:
        one.keep([(image(), made)])
        [address] = redis_client.scan_iter("*:image:*")
        redis_client.set(address, json.dumps(dataclasses.asdict(first)), ex=60)

        assert is_same(other.look_up([image()])[address_of(image())], made)


def test_the_first_workers_read_the_entries_of_today(
    options: dict[str, Any], redis_client: redis.Redis
) -> None:
    made = known()
    with closing(opened(options)) as one:
        one.keep([(image(), made)])

    [address] = redis_client.scan_iter("*:image:*")
    found = TypeAdapter(FirstEntry).validate_json(redis_client.get(address))  # type: ignore[arg-type]
    assert found == FirstEntry("e1", made.facts.sha256, 640, 480, made.stamp)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": "1"},
        {"stamp": None},
        {"sha256": "0"},
        {"width": True},
        {"height": 0},
        {"width": 2**40},
        {"etag": "e" * 5000},
    ],
    ids=str,
)
def test_an_entry_of_another_form_is_passed_over(
    options: dict[str, Any], redis_client: redis.Redis, change: dict[str, object]
) -> None:
    with closing(opened(options)) as one, closing(opened(options)) as other:
        one.keep([(image(), known())])
        [address] = redis_client.scan_iter("*:image:*")
        entry = json.loads(redis_client.get(address))  # type: ignore[arg-type]
        redis_client.set(address, json.dumps(entry | change), ex=60)

        assert other.look_up([image()]) == {}


def test_a_vector_of_another_length_is_passed_over(
    options: dict[str, Any], redis_client: redis.Redis
) -> None:
    with closing(opened(options)) as one, closing(opened(options)) as other:
        one.keep([(image(), known())])
        [embeds] = redis_client.scan_iter("*:embeds:*")
        redis_client.set(embeds, b"????", ex=60)

        assert other.look_up([image()]) == {}


def test_without_capacity_nothing_is_remembered_in_memory(
    options: dict[str, Any], redis_client: redis.Redis
) -> None:
    with closing(opened(options, image_cache_bytes=0)) as one:
        one.keep([(image(), known())])
        assert is_same(one.look_up([image()])[address_of(image())], known())
        redis_client.flushdb()

        assert one.look_up([image()]) == {}
        assert one.embeds_of(known().facts.sha256) is None


def test_without_either_part_nothing_is_known() -> None:
    with closing(opened({}, image_cache_bytes=0)) as one:
        one.keep([(image(), known())])

        assert one.look_up([image()]) == {}


def test_memory_forgets_what_was_not_used_for_longest() -> None:
    images = [image(f"s3://pets/{n:04}.jpg") for n in range(100)]
    with closing(opened({}, image_cache_bytes=100 * ENTRY_BYTES)) as one:
        for seed, each in enumerate(images):
            one.look_up([images[0]])
            one.keep([(each, known(seed))])

        found = sorted(one.look_up(images))

        assert 10 <= len(found) <= 20
        assert found[0] == images[0].uri
        assert found[1:] == [each.uri for each in images[-len(found) + 1 :]]


def test_memory_holds_no_more_than_its_bound() -> None:
    """Counted by Python itself, with vectors that are rows of a batch, as the model gives them."""
    batches, batch_size, dim = 100, 16, 4096
    tracemalloc.start()
    try:
        with closing(opened({}, image_cache_bytes=2 * MIB, dim=dim)) as one:
            before, _ = tracemalloc.get_traced_memory()
            for batch in range(batches):
                rows = np.zeros((batch_size, dim), dtype=np.float32)
                one.keep(
                    (image(f"s3://pets/{batch}/{row}.jpg"), numbered(rows[row], f"{batch}/{row}"))
                    for row in range(0, batch_size, 1 + batch % batch_size)
                )
            del rows
            after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert after - before < 1.1 * 2 * MIB


def numbered(vector: Floats, content: str) -> KnownImage:
    """Make an entry for a content of its own."""
    return KnownImage(vector, ImageFacts(hashlib.sha256(content.encode()).hexdigest(), 1, 1))


@pytest.mark.parametrize("is_keep_first", [True, False])
def test_a_redis_that_is_away_is_left_alone_for_a_while(
    own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture, is_keep_first: bool
) -> None:
    other = image("s3://pets/other.jpg")
    with closing(opened({"embeddings_url": own_valkey.url})) as one:
        one.keep([(image(), known())])
        own_valkey.kill()

        with caplog.at_level(logging.WARNING):
            if is_keep_first:
                one.keep([(other, known(1))])
            unknown = one.look_up([image("s3://pets/unknown.jpg")])
            one.keep([(other, known(1))])
            found = one.look_up([image(), other])

    assert unknown == {}
    assert sorted(found) == [image().uri, other.uri]  # memory goes on
    assert [record.message for record in caplog.records] == ["known_images_unavailable"]


def test_a_redis_that_came_back_is_asked_again(
    own_valkey: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_images, "PAUSE_S", 0.0)
    with closing(opened({"embeddings_url": own_valkey.url}, image_cache_bytes=0)) as one:
        own_valkey.kill()
        assert one.look_up([image()]) == {}
        own_valkey.start()

        one.keep([(image(), known())])

        assert is_same(one.look_up([image()])[address_of(image())], known())


def test_a_redis_that_is_slow_holds_up_one_job_and_fails_none(own_valkey: ValkeyServer) -> None:
    with closing(opened({"embeddings_url": own_valkey.url}, image_cache_bytes=0)) as one:
        one.keep([(image(), known())])
        with stopped(own_valkey):
            took_s = [timed(lambda: one.look_up([image()])) for _ in range(5)]

    assert known_images.TIMEOUT_S <= took_s[0] < 20  # with the ledger's patience it would be 40
    assert max(took_s[1:]) < known_images.TIMEOUT_S  # not asked


@contextmanager
def stopped(server: ValkeyServer) -> Iterator[None]:
    """Keep the server from answering; connections stay open."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def timed(act: Callable[[], object]) -> float:
    """Measure in seconds how long *act* takes."""
    began = time.monotonic()
    act()
    return time.monotonic() - began
