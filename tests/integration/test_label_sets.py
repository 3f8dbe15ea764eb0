"""Named label sets and shared text embeddings, on a real Valkey."""

from collections.abc import Iterator

import numpy as np
import pytest
import redis

from labelyard.errors import InvalidMessageError, LedgerUnavailableError, UnknownLabelSetError
from labelyard.label_sets import LabelSetRegistry, as_label_set, label_set_digest
from labelyard.messages import Job, Label, LabelSet
from labelyard_worker.local.servers import ValkeyServer
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.text_store import TTL_S, TextStore

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


def settings_for(url: str) -> WorkerSettings:
    return WorkerSettings(ledger_url=url, namespace="yard")


def test_a_second_worker_finds_what_the_first_encoded(clean_valkey: ValkeyServer) -> None:
    settings = settings_for(clean_valkey.url_of(1))
    vectors = {f"prompt {number}": np.full(4, number, dtype=np.float32) for number in range(2_500)}
    first = TextStore.connect(settings, fingerprint="sha256:1", dim=4)
    second = TextStore.connect(settings, fingerprint="sha256:1", dim=4)
    other_model = TextStore.connect(settings, fingerprint="sha256:2", dim=4)

    first.put_many(vectors)

    found = second.get_many([*vectors, "never encoded"])
    assert found.keys() == vectors.keys()
    assert all(np.array_equal(found[prompt], vectors[prompt]) for prompt in vectors)
    assert other_model.get_many(list(vectors)) == {}
    with redis.Redis.from_url(settings.ledger_url) as connection:
        some_key = next(iter(connection.scan_iter("yard:text:sha256:1:*")))
        assert 0 < connection.ttl(some_key) <= TTL_S
    for store in (first, second, other_model):
        store.close()


def test_a_store_that_is_away_costs_nothing_but_a_log_line(
    own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    store = TextStore.connect(settings_for(own_valkey.url_of(1)), fingerprint="sha256:1", dim=2)
    own_valkey.kill()

    assert store.get_many(["a prompt"]) == {}
    store.put_many({"a prompt": np.zeros(2, dtype=np.float32)})  # not even tried

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
