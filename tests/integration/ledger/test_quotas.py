"""Quotas of tenants: enforced as a job is opened, exact, changed at once, and each tenant's own."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from labelyard import Client, Label, LabelSet
from labelyard.errors import InvalidMessageError, LedgerUnavailableError, TenantQuotaError
from labelyard.ledger import Ledger, Opened, connect
from labelyard.ledger.scripts import script_text
from labelyard.messages import ImageRef, Job
from labelyard.publisher import Publisher
from labelyard.queues import JOB_QUEUES
from labelyard.settings import ClientSettings
from labelyard.tenants import TenantPolicy, Tenants, TenantUsage
from labelyard.testing import sample_job, sample_result

pytestmark = pytest.mark.allow_persistent_keys("a policy is kept until an operator resets it")


@pytest.fixture
def settings(ledger_url: str, broker_url: str) -> ClientSettings:
    return ClientSettings(ledger_url=ledger_url, broker_url=broker_url, namespace="test")


@pytest.fixture
def ledger(settings: ClientSettings) -> Iterator[Ledger]:
    with connect(settings) as client:
        yield Ledger(client, settings)


@pytest.fixture
def tenants(ledger: Ledger, settings: ClientSettings) -> Iterator[Tenants]:
    with ExitStack() as stack:
        publisher = Publisher(settings)
        stack.callback(publisher.close)
        yield Tenants(ledger, publisher)


def job_of(images: int = 1, *, tenant: str = "shop", prompts: int = 1, **changes: Any) -> Job:
    refs = tuple(ImageRef(id=str(n), uri=f"s3://b/{n}") for n in range(images))
    labels = LabelSet(labels=tuple(Label(name=f"label {n}") for n in range(prompts)))
    return sample_job(images=refs, tenant=tenant, label_set=labels, **changes)


def opened(ledger: Ledger, images: int = 1, *, queue: str = "bulk", **changes: Any) -> Opened:
    return ledger.open(job_of(images, **changes), queue=queue)


def refusal_of(ledger: Ledger, images: int = 1, **changes: Any) -> TenantQuotaError:
    with pytest.raises(TenantQuotaError) as caught:
        opened(ledger, images, **changes)
    return caught.value


def pass_time(ledger: Ledger, seconds: float, *, tenant: str = "shop") -> None:
    """Let time pass for a tenant's rates."""
    for field in ("images_at", "prompts_at"):
        if ledger.client.hexists(ledger.keys.rates(tenant), field):
            ledger.client.hincrbyfloat(ledger.keys.rates(tenant), field, -seconds)


def test_an_explained_picture_takes_a_quota_with_all_its_variants(
    ledger: Ledger, tenants: Tenants
) -> None:
    tenants.set("shop", max_open_images=34)
    first = job_of(explain=("label 0",))
    ledger.open(first, queue="bulk")

    refusal = refusal_of(ledger, 2, explain=("label 0",))
    is_new = opened(ledger, 1, explain=("label 0",)).is_new
    used = tenants.usage("shop").open_images
    ledger.finish(first.job_id, sample_result(job=first))

    assert (refusal.quota, is_new, used) == ("max_open_images", True, 34)
    assert tenants.usage("shop").open_images == 17


def test_open_images_are_limited_over_all_queues_until_jobs_end(
    ledger: Ledger, tenants: Tenants
) -> None:
    tenants.set("shop", max_open_images=5)
    first = job_of(3)
    ledger.open(first, queue="bulk")
    opened(ledger, 2, queue="interactive")

    refusal = refusal_of(ledger)
    ledger.finish(first.job_id, sample_result(job=first))

    assert (refusal.quota, refusal.limit, refusal.is_retryable) == ("max_open_images", 5, True)
    assert refusal.retry_after_s > 0
    assert "5 open images, limit 5" in str(refusal)
    assert opened(ledger, 3).is_new


def test_every_queue_of_jobs_counts_for_open_images() -> None:
    text = script_text("open.lua")

    for queue in JOB_QUEUES:
        assert f"{queue.upper()}_QUEUE .. ':' .. tenant" in text


def test_a_quota_of_no_images_shuts_a_tenant_out(ledger: Ledger, tenants: Tenants) -> None:
    tenants.set("shop", max_open_images=0)

    assert refusal_of(ledger).quota == "max_open_images"
    assert opened(ledger, tenant="blog").is_new


def test_a_rate_allows_a_burst_of_one_second_and_then_its_pace(
    ledger: Ledger, tenants: Tenants
) -> None:
    tenants.set("shop", images_per_s=10)
    for _ in range(5):
        opened(ledger, 2)

    refusal = refusal_of(ledger, 2)
    pass_time(ledger, refusal.retry_after_s)

    assert (refusal.quota, refusal.limit) == ("images_per_s", 10)
    assert 0 < refusal.retry_after_s <= 0.2
    assert opened(ledger, 2).is_new


def test_a_job_larger_than_the_rate_passes_and_is_paid_for_afterwards(
    ledger: Ledger, tenants: Tenants
) -> None:
    tenants.set("shop", images_per_s=10)

    opened(ledger, 64)
    small, large = refusal_of(ledger, 1), refusal_of(ledger, 64)

    # 10 of the bucket, 54 of debt: 5.4 s until it is empty, 1 s more until it is full.
    assert small.retry_after_s == pytest.approx(5.5, abs=0.2)
    assert large.retry_after_s == pytest.approx(6.4, abs=0.2)
    pass_time(ledger, 6.5)
    assert opened(ledger, 64).is_new


@pytest.mark.parametrize(("images", "span_s"), [(1, 3), (3, 6), (64, 40)])
def test_over_a_long_time_jobs_of_any_size_use_the_rate_and_no_more(
    ledger: Ledger, tenants: Tenants, images: int, span_s: float
) -> None:
    tenants.set("shop", images_per_s=16)
    accepted, passed_s, began_at = 0, 0.0, ledger.now()
    while passed_s < span_s:
        try:
            opened(ledger, images)
        except TenantQuotaError as error:
            pass_time(ledger, error.retry_after_s)
            passed_s += error.retry_after_s
        else:
            accepted += images

    taken_s = passed_s + ledger.now() - began_at  # by the ledger's clock
    assert 16 * passed_s <= accepted <= 16 * (taken_s + 1) + images


def test_prompts_are_those_of_label_sets_in_the_job(ledger: Ledger, tenants: Tenants) -> None:
    tenants.set("shop", prompts_per_s=20)
    reference = f"pets@sha256:{'0' * 64}"

    opened(ledger, prompts=20)
    refusal = refusal_of(ledger, prompts=1)

    assert (refusal.quota, refusal.limit) == ("prompts_per_s", 20)
    registered = job_of().model_copy(update={"label_set": reference})
    assert ledger.open(registered, queue="bulk").is_new


def test_a_job_that_one_quota_refuses_is_charged_for_none(ledger: Ledger, tenants: Tenants) -> None:
    tenants.set("shop", prompts_per_s=5, images_per_s=10)
    opened(ledger, 1, prompts=5)
    before = tenants.usage("shop").images_left

    for _ in range(3):
        refusal_of(ledger, 5, prompts=5)

    after = tenants.usage("shop").images_left
    assert before is not None
    assert after is not None
    assert after >= before
    assert ledger.backlog()[next(iter(ledger.backlog()))].images == 1


def test_a_job_that_is_submitted_again_is_charged_once(ledger: Ledger, tenants: Tenants) -> None:
    tenants.set("shop", images_per_s=10)
    job = job_of(10)
    ledger.open(job, queue="bulk")

    again = ledger.open(job, queue="bulk")

    assert not again.is_new
    usage = tenants.usage("shop")
    assert usage.images_left is not None
    assert -0.1 < usage.images_left < 10


def test_a_change_takes_effect_at_once_whatever_the_debt(ledger: Ledger, tenants: Tenants) -> None:
    tenants.set("shop", images_per_s=0.01)
    opened(ledger, 64)
    slow = refusal_of(ledger)

    tenants.set("shop", images_per_s=1000)
    fast = tenants.usage("shop").images_left
    tenants.reset("shop")

    assert slow.retry_after_s > 6000
    assert fast is not None
    assert fast > -64
    assert opened(ledger).is_new


def test_tenants_without_a_policy_have_that_of_all_others_but_each_its_own_use(
    ledger: Ledger, tenants: Tenants
) -> None:
    tenants.set("*", max_open_images=2, images_per_s=2)
    tenants.set("vip")

    opened(ledger, 2, tenant="shop")

    assert refusal_of(ledger, tenant="shop").quota == "max_open_images"
    assert opened(ledger, 2, tenant="blog").is_new
    assert opened(ledger, 64, tenant="vip").is_new


def test_adopted_messages_are_charged_but_never_refused(ledger: Ledger, tenants: Tenants) -> None:
    tenants.set("shop", max_open_images=64, images_per_s=1)

    for _ in range(10):
        assert ledger.adopt(job_of(64), queue="bulk")

    assert tenants.usage("shop").open_images == 640
    assert refusal_of(ledger).quota == "max_open_images"
    tenants.set("shop", images_per_s=1)
    assert 0 < refusal_of(ledger).retry_after_s <= 62  # not 640 s


def test_no_quota_is_exceeded_by_threads_that_submit_at_once(
    settings: ClientSettings, ledger: Ledger, tenants: Tenants
) -> None:
    tenants.set("shop", max_open_images=50)

    def submit(_: int) -> int:
        answers = ledger.open_many([job_of() for _ in range(20)], queue="bulk")
        return sum(isinstance(answer, Opened) for answer in answers)

    with ThreadPoolExecutor(8) as pool:
        accepted = sum(pool.map(submit, range(8)))

    assert accepted == 50
    assert tenants.usage("shop") == TenantUsage(50, 50, images_left=None, prompts_left=None)


def test_submit_many_says_how_many_were_accepted_and_when_to_go_on(
    settings: ClientSettings,
) -> None:
    with Client(settings) as client:
        client.tenants.set("shop", max_open_images=3)
        jobs = [client.prepare(["s3://a/b.jpg"], ["cat"], tenant="shop") for _ in range(5)]

        with pytest.raises(TenantQuotaError, match="3 jobs were accepted before") as caught:
            client.submit_many(jobs)
        client.tenants.set("shop", max_open_images=5)
        handles = client.submit_many(jobs)

    assert (caught.value.quota, caught.value.limit) == ("max_open_images", 3)
    assert [handle.is_new for handle in handles] == [False] * 3 + [True] * 2


def test_weights_go_to_the_broker(
    tenants: Tenants, settings: ClientSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[dict[str, float]] = []
    monkeypatch.setattr(Publisher, "write_weights", lambda _, weights: written.append(weights))

    tenants.set("shop", weight=3)
    tenants.set("*", weight=0.5)
    tenants.reset("shop")

    assert written == [{"shop": 3.0}, {"*": 0.5, "shop": 3.0}, {"*": 0.5}]


def test_a_broker_that_is_away_does_not_keep_a_policy_from_taking_effect(
    ledger: Ledger, settings: ClientSettings
) -> None:
    away = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})
    with ExitStack() as stack:
        publisher = Publisher(away, timeout_s=0.1)
        stack.callback(publisher.close)

        Tenants(ledger, publisher).set("shop", max_open_images=0)

    assert refusal_of(ledger).quota == "max_open_images"


def test_policies_are_listed_read_and_reset(tenants: Tenants) -> None:
    policy = tenants.set("shop", weight=3, max_open_images=100_000, prompts_per_s=0.5)
    every = tenants.set("*", images_per_s=50)

    assert tenants.list() == {"*": every, "shop": policy}
    assert tenants.get("shop") == policy
    assert tenants.get("blog") == every
    tenants.reset("shop")
    tenants.reset("shop")
    assert tenants.get("shop") == every
    tenants.reset("*")
    assert (tenants.list(), tenants.get("shop")) == ({}, TenantPolicy())


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"weight": 0}, "weight"),
        ({"weight": 1001}, "weight"),
        ({"weight": True}, "weight"),
        ({"max_open_images": -1}, "max_open_images"),
        ({"max_open_images": 1.5}, "max_open_images"),
        ({"images_per_s": 0}, "images_per_s"),
        ({"images_per_s": float("inf")}, "images_per_s"),
        ({"prompts_per_s": "5"}, "prompts_per_s"),
        ({"tenant": "a b"}, "tenant"),
        ({"tenant": ""}, "tenant"),
    ],
    ids=repr,
)
def test_a_policy_that_cannot_hold_is_refused(
    tenants: Tenants, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidMessageError, match=field):
        tenants.set(**{"tenant": "shop", **changes})

    assert tenants.list() == {}


def test_a_policy_of_a_later_version_is_read_and_one_of_another_program_is_an_error(
    tenants: Tenants, ledger: Ledger
) -> None:
    ledger.client.hset(ledger.keys.tenants, "shop", '{"weight": 2.0, "gpus": 4}')
    assert tenants.get("shop") == TenantPolicy(weight=2)

    ledger.client.hset(ledger.keys.tenants, "shop", "many")
    with pytest.raises(LedgerUnavailableError, match="set it again"):
        tenants.get("shop")
