"""Versions of label sets and aliases, on a real Valkey: moves are atomic, and recorded."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from labelyard.errors import (
    AliasConflictError,
    InvalidMessageError,
    LabelyardError,
    UnknownLabelSetError,
)
from labelyard.label_sets import LabelSetRegistry, as_label_set
from labelyard.label_sets.versions import Alias
from labelyard.ledger import limits
from labelyard.messages import Label
from labelyard.testing import FakeClient
from labelyard_worker.local.servers import ValkeyServer

PETS = as_label_set(["cat", "dog"])
FARM = as_label_set(["cat", Label(name="dog", threshold=0.4), "cow"], temperature=2.0)
pytestmark = pytest.mark.allow_persistent_keys("versions and aliases stay until they are deleted")


@pytest.fixture
def connection(clean_valkey: ValkeyServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(clean_valkey.url_of(1), decode_responses=True) as connection:
        yield connection


@pytest.fixture
def registry(connection: redis.Redis) -> LabelSetRegistry:
    return LabelSetRegistry(connection, namespace="yard")


def test_a_log_names_parents_notes_figures_and_aliases(registry: LabelSetRegistry) -> None:
    old = registry.register("pets", PETS, author="ann", note="first")
    new = registry.register("pets", FARM, parent=old, note="with cows")
    registry.attach(old, {"accuracy": 0.5, "accuracy_interval": [0.4, 0.6]})
    registry.promote(old, "pets@prod")

    newest, oldest = registry.log("pets")

    assert (newest.reference, newest.parent, newest.note) == (new, old, "with cows")
    assert (oldest.parent, oldest.author, oldest.aliases) == (None, "ann", ("pets@prod",))
    assert oldest.metrics == {"accuracy": 0.5, "accuracy_interval": [0.4, 0.6]}
    assert oldest.created_at is not None
    assert newest.created_at is not None
    assert oldest.created_at < newest.created_at


def test_a_version_that_is_registered_again_keeps_its_parent_and_time(
    registry: LabelSetRegistry,
) -> None:
    old = registry.register("pets", PETS)
    registry.register("pets", FARM, parent=old, note="with cows")
    [before, _] = registry.log("pets")

    registry.register("pets", FARM, parent=f"pets@sha256:{'0' * 64}", note="again")

    [after, _] = registry.log("pets")
    assert (after.parent, after.created_at, after.note) == (old, before.created_at, "again")


def test_a_diff_names_labels_fields_and_settings_that_changed(registry: LabelSetRegistry) -> None:
    old, new = registry.register("pets", PETS), registry.register("pets", FARM)
    registry.promote(old, "pets@prod")

    diff = registry.diff("pets@prod", "pets")

    assert (diff.added, diff.removed) == (("cow",), ())
    assert diff.changed == {"dog": {"threshold": (None, 0.4)}}
    assert diff.settings == {"temperature": (1.0, 2.0)}
    assert registry.diff(new, old).removed == ("cow",)
    assert registry.diff(new, new).is_empty


def test_a_promotion_moves_the_alias_and_every_move_is_recorded(
    registry: LabelSetRegistry,
) -> None:
    old, new = registry.register("pets", PETS), registry.register("pets", FARM)

    registry.promote(old, "pets@prod", author="ann", note="first")
    registry.promote("pets", "pets@prod", expect=old, author="bob")
    registry.promote(old, "pets@prod", share=0.25)
    tried = registry.alias("pets@prod")
    registry.end_canary("pets@prod")
    registry.remove_alias("pets@prod")

    assert (tried.reference, tried.canary, tried.share, tried.moves) == (new, old, 0.25, 3)
    moves = registry.moves("pets@prod")
    assert [move.action for move in moves] == ["remove", "end_canary", "canary", "move", "move"]
    assert [(move.before, move.reference, move.author) for move in moves[-2:]] == [
        (old, new, "bob"),
        ("", old, "ann"),
    ]
    assert moves[2].share == 0.25
    assert registry.aliases() == []


def test_a_move_ends_the_canary(registry: LabelSetRegistry) -> None:
    old, new = registry.register("pets", PETS), registry.register("pets", FARM)
    registry.promote(old, "pets@prod")
    registry.promote(new, "pets@prod", share=1)

    moved = registry.promote(new, "pets@prod")

    assert (moved.reference, moved.canary, moved.share) == (new, None, 0.0)


def test_of_many_who_expect_the_same_version_one_moves_the_alias(
    registry: LabelSetRegistry,
) -> None:
    old = registry.register("pets", PETS)
    versions = [registry.register("pets", as_label_set(["cat", str(n)])) for n in range(8)]
    registry.promote(old, "pets@prod")

    def try_to_move(version: str) -> bool:
        try:
            registry.promote(version, "pets@prod", expect=old)
        except AliasConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        moved = list(pool.map(try_to_move, versions))

    assert moved.count(True) == 1
    assert registry.alias("pets@prod").reference == versions[moved.index(True)]
    assert len(registry.moves("pets@prod")) == 2


def test_readers_see_one_version_or_the_other_while_an_alias_moves(
    registry: LabelSetRegistry,
) -> None:
    old, new = registry.register("pets", PETS), registry.register("pets", FARM)
    registry.promote(old, "pets@prod")
    is_over = threading.Event()

    def read() -> set[str]:
        seen = set()
        while not is_over.is_set():
            seen.add(registry.alias("pets@prod").reference)
        return seen

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for _ in range(50):
            registry.promote(new, "pets@prod", expect=old)
            assert registry.alias("pets@prod").reference == new  # whoever moved it sees it
            registry.promote(old, "pets@prod", expect=new)
        is_over.set()

    assert set.union(*(reader.result() for reader in readers)) <= {old, new}


def test_a_version_that_an_alias_names_cannot_be_deleted(registry: LabelSetRegistry) -> None:
    old, new = registry.register("pets", PETS), registry.register("pets", FARM)
    registry.promote(old, "pets@prod")
    registry.promote(new, "pets@prod", share=0.5)

    for reference in (old, new):
        with pytest.raises(AliasConflictError, match="pets@prod names"):
            registry.delete(reference)
    registry.promote(new, "pets@prod")
    registry.delete(old)

    assert registry.versions("pets") == [new]


def test_a_new_alias_can_be_asked_not_to_exist(registry: LabelSetRegistry) -> None:
    old, new = registry.register("pets", PETS), registry.register("pets", FARM)
    registry.promote(old, "pets@prod", expect="")

    with pytest.raises(AliasConflictError, match="it names pets@sha256:"):
        registry.promote(new, "pets@prod", expect="")
    with pytest.raises(AliasConflictError, match="there is no such alias"):
        registry.promote(new, "pets@test", expect=old)


def test_a_call_that_is_repeated_moves_the_alias_once(registry: LabelSetRegistry) -> None:
    old = registry.register("pets", PETS)
    command = registry._commands.move_alias("move", "pets@prod", reference=old, expect="-")

    first, second = registry._run(command), registry._run(command)

    assert first == second
    assert len(registry.moves("pets@prod")) == 1


@pytest.mark.parametrize("alias", ["pets", "pets@", "@prod", "pets@Prod", "pets@a:b", "x" * 99])
def test_what_cannot_be_an_alias_is_refused(registry: LabelSetRegistry, alias: str) -> None:
    registry.register("pets", PETS)

    with pytest.raises(InvalidMessageError, match="alias: write name@alias"):
        registry.promote("pets", alias)


@pytest.mark.parametrize("share", [0, -0.1, 1.1, float("nan"), True, "a half"])
def test_a_share_that_is_none_is_refused(registry: LabelSetRegistry, share: float) -> None:
    registry.promote(registry.register("pets", PETS), "pets@prod")

    with pytest.raises(InvalidMessageError, match="share"):
        registry.promote("pets", "pets@prod", share=share)


def test_an_alias_names_versions_of_its_own_label_set_only(registry: LabelSetRegistry) -> None:
    registry.register("pets", PETS)

    with pytest.raises(InvalidMessageError, match="its own label set"):
        registry.promote("pets", "farm@prod")
    with pytest.raises(UnknownLabelSetError, match="no such alias"):
        registry.promote("pets", "pets@prod", share=0.5)
    with pytest.raises(UnknownLabelSetError):
        registry.promote(f"pets@sha256:{'0' * 64}", "pets@prod")


def test_there_are_only_so_many_aliases(
    registry: LabelSetRegistry, connection: redis.Redis
) -> None:
    old = registry.register("pets", PETS)
    stored = json.dumps({"reference": old, "moves": 1, "moved_at": 1.0})
    names = [f"pets@a{number}" for number in range(limits.MAX_ALIASES)]
    connection.hset(registry._keys.label_set_aliases, mapping=dict.fromkeys(names, stored))

    with pytest.raises(InvalidMessageError, match="remove some"):
        registry.promote(old, "pets@prod")
    assert registry.promote(old, "pets@a0").moves == 2


def test_a_canary_gets_its_share_of_the_jobs_by_their_id() -> None:
    half = Alias("pets@prod", "pets@sha256:0", canary="pets@sha256:1", share=0.25)
    ids = [f"job {number}" for number in range(4_000)]

    chosen = [job_id for job_id in ids if half.canary_of(job_id) is not None]

    assert 0.22 < len(chosen) / len(ids) < 0.28
    assert [job_id for job_id in ids if half.canary_of(job_id) is not None] == chosen
    assert Alias("pets@prod", "pets@sha256:0").canary_of("job 1") is None


def answers(registry: LabelSetRegistry) -> list[Any]:
    """Make every kind of change, also refused ones, and return what the registry answers."""
    old = registry.register("pets", PETS)
    new = registry.register("pets", FARM, parent=old)
    steps: list[Callable[[], Any]] = [
        lambda: registry.alias("pets@prod"),
        lambda: registry.promote("pets", "pets@prod", share=0.5),
        lambda: registry.promote(old, "pets@prod", expect="", author="ann", note="first"),
        lambda: registry.promote(new, "pets@prod", expect=""),
        lambda: registry.promote(new, "pets@prod", expect=new),
        lambda: registry.promote(new, "pets@prod", share=0.5),
        lambda: registry.end_canary("pets@prod", author="bob"),
        lambda: registry.promote(new, "pets@prod", share=0.25),
        lambda: registry.promote("pets", "pets@prod", expect=old),
        lambda: registry.promote(f"pets@sha256:{'0' * 64}", "pets@prod"),
        lambda: registry.promote(old, "farm@prod"),
        lambda: registry.promote(old, "pets@test"),
        lambda: registry.attach("pets@prod", {"accuracy": 0.5}),
        lambda: registry.delete(new),
        lambda: registry.log("pets"),
        lambda: registry.log("farm"),
        lambda: registry.remove_alias("pets@prod", note="gone"),
        lambda: registry.remove_alias("pets@prod"),
        lambda: registry.end_canary("pets@prod"),
        lambda: registry.moves("pets@prod"),
        lambda: registry.aliases(),
        lambda: (registry.names(), registry.versions("pets"), registry.resolve("pets")),
        lambda: registry.drift("pets"),
        lambda: registry.set_baseline("pets"),
    ]
    return [answer_of(step) for step in steps]


def answer_of(step: Callable[[], Any]) -> Any:
    """Return a step's answer without times, or its error."""
    try:
        answer = step()
    except LabelyardError as error:
        return str(error)
    return re.sub(r"(at|moved_at|created_at)=[0-9.]+", "", repr(answer))


def test_a_fake_registry_answers_as_the_ledger_does(registry: LabelSetRegistry) -> None:
    assert answers(FakeClient().label_sets) == answers(registry)
