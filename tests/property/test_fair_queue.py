"""The intake's queue keeps its shares, serves tenants in turn, and loses nobody."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from labelyard.messages import ImageRef
from labelyard.queues import Priority
from labelyard_worker.intake.queue import (
    INTERACTIVE_IN_A_ROW,
    FairQueue,
    IntakeRequest,
    Shares,
)

TENANTS = ("a", "b", "c")
BUCKETS = ("x", "y")


def request(tenant: str, bucket: str, priority: Priority) -> IntakeRequest:
    image = ImageRef(id="1", uri=f"s3://{bucket}/key")
    return IntakeRequest(image, priority=priority, tenant=tenant)


requests = st.builds(
    request,
    st.sampled_from(TENANTS),
    st.sampled_from(BUCKETS),
    st.sampled_from((Priority.INTERACTIVE, Priority.BULK)),
)
limits = st.integers(min_value=0, max_value=4)
shares = st.builds(Shares, limits, limits, limits, limits)
# Put one of the requests, take one, finish or withdraw the oldest.
steps = st.lists(st.sampled_from(("put", "put", "take", "finish", "withdraw")), max_size=60)


@given(st.lists(requests, min_size=60, max_size=60), shares, steps)
def test_no_share_is_exceeded_and_no_request_is_lost_or_served_twice(
    coming: list[IntakeRequest], shares: Shares, steps: list[str]
) -> None:
    queue = FairQueue(shares)
    waiting: list[IntakeRequest] = []
    working: list[IntakeRequest] = []
    for step in steps:
        if step == "put":
            waiting.append(coming.pop())
            queue.put(waiting[-1])
        elif step == "take" and (taken := queue.take()) is not None:
            waiting.remove(taken)
            working.append(taken)
        elif step == "finish" and working:
            queue.finish(working.pop(0))
        elif step == "withdraw" and waiting:
            assert queue.remove(waiting.pop(0))

        assert len(queue) == len(waiting)
        assert set(queue) == set(waiting)
        assert queue.in_work == len(working)
        counts = (
            (shares.total, len(working)),
            (shares.bulk, sum(one.priority == Priority.BULK for one in working)),
            (shares.tenant, max(Counter(one.tenant for one in working).values(), default=0)),
            (shares.source, max(Counter(one.source for one in working).values(), default=0)),
        )
        assert all(not most or count <= most for most, count in counts)


@given(st.lists(requests, max_size=60))
def test_all_are_served_in_order_within_tenant_source_and_priority(
    coming: list[IntakeRequest],
) -> None:
    queue = FairQueue()
    for one in coming:
        queue.put(one)

    served = [queue.take() for _ in coming]

    assert queue.take() is None
    assert set(served) == set(coming)
    for line in {(one.tenant, one.source, one.priority) for one in coming}:
        in_line = [one for one in served if one and (one.tenant, one.source, one.priority) == line]
        asked = [one for one in coming if (one.tenant, one.source, one.priority) == line]
        assert in_line == asked


@given(st.lists(st.sampled_from(TENANTS), min_size=1, max_size=60))
def test_a_tenant_waits_for_one_image_of_each_other_at_most(tenants: list[str]) -> None:
    queue = FairQueue()
    for tenant in tenants:
        queue.put(request(tenant, "x", Priority.BULK))
    waiting = Counter(tenants)
    passed_over: Counter[str] = Counter()

    while (taken := queue.take()) is not None:
        waiting[taken.tenant] -= 1
        passed_over[taken.tenant] = 0
        for tenant, left in waiting.items():
            if left and tenant != taken.tenant:
                passed_over[tenant] += 1
                assert passed_over[tenant] < len(TENANTS)


@given(st.integers(1, 30), st.integers(1, 30))
def test_interactive_images_go_first_and_bulk_ones_never_wait_for_ever(
    interactive: int, bulk: int
) -> None:
    queue = FairQueue()
    for _ in range(bulk):
        queue.put(request("a", "x", Priority.BULK))
    for _ in range(interactive):
        queue.put(request("b", "x", Priority.INTERACTIVE))

    served = [one.priority for _ in range(interactive + bulk) if (one := queue.take())]

    before_bulk_only = served[: interactive + interactive // INTERACTIVE_IN_A_ROW]
    expected_bulk = min(bulk, interactive // INTERACTIVE_IN_A_ROW)
    assert before_bulk_only.count(Priority.BULK) <= expected_bulk
    assert served.count(Priority.BULK) == bulk
    first = served[: INTERACTIVE_IN_A_ROW + 1]
    assert first[:interactive] == [Priority.INTERACTIVE] * min(
        interactive, INTERACTIVE_IN_A_ROW
    ) + ([Priority.BULK] if interactive > INTERACTIVE_IN_A_ROW else [])


@given(st.integers(1, 40))
def test_a_flood_of_one_source_leaves_slots_for_others(flood: int) -> None:
    queue = FairQueue(Shares.of(16))
    for _ in range(flood):
        queue.put(request("a", "slow", Priority.INTERACTIVE))
    while queue.take() is not None:
        pass

    queue.put(request("b", "fast", Priority.INTERACTIVE))

    taken = queue.take()
    assert taken is not None
    assert taken.tenant == "b"
