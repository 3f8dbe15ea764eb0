"""Named label sets and shared text embeddings, on a real Valkey."""

import gc
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import redis

from labelyard.errors import InvalidMessageError, LedgerUnavailableError, UnknownLabelSetError
from labelyard.label_sets import LabelSetRegistry, as_label_set, label_set_digest
from labelyard.messages import Job, Label, LabelSet
from labelyard_worker.local.servers import ValkeyServer
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.text_cache import INLINE_TTL_S, TextCache

MIB = 1024 * 1024
REGISTERED_TTL_S = 86_400
PETS = as_label_set(["cat", "dog"])
persistent = pytest.mark.allow_persistent_keys(
    "registered label sets stay until somebody deletes them"
)


@pytest.fixture
def connection(clean_valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(clean_valkey.url_of(1), decode_responses=True) as connection:
        yield connection


@pytest.fixture
def registry(connection: redis.Redis) -> LabelSetRegistry:
    return LabelSetRegistry(connection, namespace="yard")


@persistent
def test_a_registered_set_is_read_back_by_its_reference(
    registry: LabelSetRegistry, connection: redis.Redis
) -> None:
    labels = tuple(Label(name=f"label {number}") for number in range(10_000))
    label_set = LabelSet(labels=labels, templates=("a {}", "ein {} für dich"), abstain=("none",))

    reference = registry.register("moderation", label_set)

    assert reference == f"moderation@{label_set_digest(label_set)}"
    assert LabelSetRegistry(connection, namespace="yard").get(reference) == label_set
    assert Job(job_id="a", images=[{"id": "1", "uri": "s3://b/k"}], label_set=reference)


@persistent
def test_a_name_has_versions_and_each_reference_keeps_its_meaning(
    registry: LabelSetRegistry,
) -> None:
    old = registry.register("pets", PETS)
    new = registry.register("pets", as_label_set(["cat", "dog", "cow"]))
    registry.register("pets.eu", PETS)

    assert registry.versions("pets") == [old, new]
    assert registry.names() == ["pets", "pets.eu"]
    assert registry.get(old) == PETS
    assert registry.register("pets", PETS) == old
    assert registry.versions("pets") == [new, old]  # the newest last


@persistent
def test_a_set_is_fetched_once_a_process(
    registry: LabelSetRegistry, connection: redis.Redis
) -> None:
    reference = registry.register("pets", PETS)
    first = registry.get(reference)
    connection.flushdb()

    assert registry.get(reference) is first


@pytest.mark.parametrize(
    "reference", ["pets@sha256:" + "0" * 64, "pets", "pets@sha256:abc", "", "Pets@" + "0" * 64]
)
def test_a_reference_to_nothing_is_an_unknown_label_set(
    registry: LabelSetRegistry, reference: str
) -> None:
    with pytest.raises(UnknownLabelSetError):
        registry.get(reference)


@pytest.mark.parametrize("name", ["", "Pets", "pets@1", "a/b", "-pets", "x" * 65])
def test_a_name_that_cannot_stand_in_a_reference_is_refused(
    registry: LabelSetRegistry, name: str
) -> None:
    with pytest.raises(InvalidMessageError, match="cannot name a label set"):
        registry.register(name, PETS)


def test_a_ledger_that_is_away_is_said_so(own_valkey: ValkeyServer) -> None:
    url = own_valkey.url_of(1)
    own_valkey.kill()

    with redis.Redis.from_url(url) as connection:
        registry = LabelSetRegistry(connection, namespace="yard")
        for call in (
            lambda: registry.register("pets", PETS),
            lambda: registry.get(f"pets@{label_set_digest(PETS)}"),
            registry.names,
        ):
            with pytest.raises(LedgerUnavailableError):
                call()


def test_equal_sets_have_equal_digests_and_others_have_others() -> None:
    written_out = LabelSet(
        labels=(Label(name="cat", prompts=(), threshold=None), Label(name="dog")),
        scoring="auto",
        temperature=1.0,
    )

    assert label_set_digest(written_out) == label_set_digest(PETS)
    assert label_set_digest(PETS) == (
        "sha256:6556e022d91995902ae9356cd6780e9e211146b3ba5d6f82975bfc9ddb4ef022"
    )
    others = [
        as_label_set(["dog", "cat"]),
        as_label_set(["cat", "dog"], temperature=2.0),
        as_label_set(["cat", Label(name="dog", threshold=0.5)]),
        as_label_set(["cat", "dög"]),
    ]
    assert len({label_set_digest(other) for other in [PETS, *others]}) == 5


def test_a_label_set_is_made_of_names_labels_or_itself() -> None:
    mixed = as_label_set(["cat", Label(name="dog", threshold=0.3)], templates=("a {}",))

    assert [label.threshold for label in mixed.labels] == [None, 0.3]
    assert as_label_set(mixed) is mixed
    for wrong, options in (("cat", {}), ([], {}), (["cat", "cat"], {}), (mixed, {"top": 1})):
        with pytest.raises(InvalidMessageError):
            as_label_set(wrong, **options)
    with pytest.raises(InvalidMessageError, match="templates"):
        as_label_set(["cat"], templates=("no gap",))


@persistent
def test_another_set_under_a_reference_is_not_taken_for_it(
    registry: LabelSetRegistry, connection: redis.Redis
) -> None:
    other = as_label_set(["cow"])
    connection.set(f"yard:label_set:{label_set_digest(PETS)}", other.model_dump_json())

    with pytest.raises(UnknownLabelSetError, match="another set is stored"):
        registry.get(f"pets@{label_set_digest(PETS)}")


def large_set(number: int) -> LabelSet:
    """Make a set of a few megabytes; another number is another set."""
    return LabelSet(
        labels=tuple(
            Label(name=f"{number} {n}", prompts=tuple(f"{number} {n} {p}" for p in range(n % 5)))
            for n in range(4_000)
        )
    )


@persistent
def test_parsed_sets_in_memory_are_bounded_in_bytes(
    registry: LabelSetRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted by Python itself; without a bound, all sets would take three times as much."""
    monkeypatch.setattr("labelyard.label_sets.registry.CACHED_BYTES", 16 * MIB)
    references = [registry.register("large", large_set(number)) for number in range(12)]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for reference in references:
            registry.get(reference)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert 8 * MIB < after - before < 1.1 * 16 * MIB


def settings_for(url: str | None, **options: Any) -> WorkerSettings:
    return WorkerSettings(embeddings_url=url, namespace="yard", **options)


def store_for(url: str, *, fingerprint: str = "sha256:1", dim: int = 4) -> TextCache:
    settings = settings_for(url, embeddings_ttl_s=REGISTERED_TTL_S)
    store = TextCache.connect(settings, fingerprint=fingerprint, dim=dim)
    assert store is not None
    return store


def ttls_of(url: str) -> set[int]:
    """Return the lives of all vectors, to the minute."""
    with redis.Redis.from_url(url) as connection:
        keys = connection.scan_iter("yard:text:sha256:1:*")
        return {round(int(connection.ttl(key)) / 60) * 60 for key in keys}


def test_a_second_worker_finds_what_the_first_encoded(clean_valkey: ValkeyServer) -> None:
    url = clean_valkey.url_of(2)
    vectors = {f"prompt {number}": np.full(4, number, dtype=np.float32) for number in range(2_500)}
    first, second, other_model = (
        store_for(url, fingerprint=name) for name in ("sha256:1", "sha256:1", "sha256:2")
    )

    first.put_many(vectors, is_registered=True)

    found = second.get_many([*vectors, "never encoded"], is_registered=True)
    assert found.keys() == vectors.keys()
    assert all(np.array_equal(found[prompt], vectors[prompt]) for prompt in vectors)
    assert other_model.get_many(list(vectors), is_registered=True) == {}
    for store in (first, second, other_model):
        store.close()


def test_only_vectors_of_registered_sets_live_long(clean_valkey: ValkeyServer) -> None:
    url = clean_valkey.url_of(2)
    vectors = {"a prompt": np.ones(4, dtype=np.float32)}
    lives = []
    with closing(store_for(url)) as store:
        store.put_many(vectors, is_registered=False)
        lives.append(ttls_of(url))
        store.get_many(["a prompt"], is_registered=False)
        lives.append(ttls_of(url))
        store.get_many(["a prompt"], is_registered=True)
        lives.append(ttls_of(url))
        store.put_many(vectors, is_registered=False)
        lives.append(ttls_of(url))

    assert lives == [{INLINE_TTL_S}, {INLINE_TTL_S}, {REGISTERED_TTL_S}, {REGISTERED_TTL_S}]


def test_without_a_redis_that_evicts_vectors_stay_in_memory() -> None:
    assert TextCache.connect(settings_for(None), fingerprint="sha256:1", dim=4) is None


@pytest.mark.parametrize("value", [b"", b"junk", np.full(4, np.nan, dtype="<f4").tobytes()])
def test_what_is_no_vector_is_passed_over(clean_valkey: ValkeyServer, value: bytes) -> None:
    url = clean_valkey.url_of(2)
    with closing(store_for(url)) as store, redis.Redis.from_url(url) as connection:
        store.put_many({"a prompt": np.ones(4, dtype=np.float32)}, is_registered=False)
        [key] = connection.scan_iter("yard:text:*")
        connection.set(key, value, ex=60)

        assert store.get_many(["a prompt"], is_registered=False) == {}


def test_a_store_that_is_away_costs_nothing_but_a_log_line(
    own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_for(own_valkey.url_of(2), dim=2)
    own_valkey.kill()

    assert store.get_many(["a prompt"], is_registered=True) == {}
    store.put_many({"a prompt": np.zeros(2, dtype=np.float32)}, is_registered=True)  # not tried

    assert [record.message for record in caplog.records] == ["text_store_unavailable"]
    store.close()


def test_a_set_that_makes_too_many_prompts_is_not_registered(registry: LabelSetRegistry) -> None:
    label_set = as_label_set(
        [str(number) for number in range(1_001)],
        templates=tuple(f"{number} {{}}" for number in range(100)),
    )

    with pytest.raises(InvalidMessageError, match=r"100100 prompts \(limit 100000\)"):
        registry.register("many", label_set)

    assert registry.names() == []


@persistent
def test_a_deleted_version_is_unknown_and_the_others_stay(registry: LabelSetRegistry) -> None:
    birds = as_label_set(["a wren", "an owl"])
    gone, kept = registry.register("animals", PETS), registry.register("animals", birds)
    registry.get(gone)

    registry.delete(gone)

    with pytest.raises(UnknownLabelSetError):
        registry.get(gone)
    assert registry.versions("animals") == [kept]
    assert registry.get(kept) == birds


@persistent
def test_labels_under_two_names_stay_until_both_are_deleted(registry: LabelSetRegistry) -> None:
    one, other = registry.register("pets", PETS), registry.register("animals", PETS)

    registry.delete(one)
    still_known = registry.get(other)
    registry.delete(other)

    assert still_known == PETS
    assert registry.names() == []
    with pytest.raises(UnknownLabelSetError):
        registry.get(other)


@pytest.mark.parametrize("reference", ["pets", f"pets@sha256:{'0' * 64}", ""])
def test_an_unknown_label_set_cannot_be_deleted(registry: LabelSetRegistry, reference: str) -> None:
    with pytest.raises(UnknownLabelSetError):
        registry.delete(reference)
