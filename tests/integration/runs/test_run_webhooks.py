"""Webhook of a run's end: one signed message, with the retries and dead letters of jobs."""

from collections.abc import Iterator

import pytest

from labelyard.ledger import DeliveryState, Pending
from labelyard.ledger.webhooks import Webhooks
from labelyard.messages import Result
from labelyard.runs.ledger import RunLedger
from labelyard.runs.parts import EndPart, end_of
from labelyard.runs.run_end import RunEnd
from labelyard.webhooks import verify, webhook_id
from tests.support.delivering import SECRET, DeliveryRig, delivering
from tests.support.receiver import Receiver, running_receiver
from tests.support.run_samples import sample_run
from tests.support.waiting import wait_until


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running_receiver() as running:
        yield running


@pytest.fixture
def rig(ledger_url: str) -> Iterator[DeliveryRig]:
    with delivering(ledger_url) as running:
        yield running


def end_run(rig: DeliveryRig, webhook: str, *, state: str = "partial", times: int = 1) -> EndPart:
    """End a run as a worker does, and leave its webhook to whichever worker has room."""
    runs, request = RunLedger(rig.ledger), sample_run(webhook=webhook)
    runs.open(request)
    runs.steer(request.run_id, "finish")
    part = end_of(request, epoch=0)
    runs.open_part(part)
    runs.ledger.start(part.job_id, worker="w1", quarantine_after=9, dead_after=9)
    result = Result(job_id=part.job_id, status="succeeded", tenant=part.tenant)
    notice = RunEnd(
        run_id=part.run_id, state=state, tenant=part.tenant, out=request.out, bad_lines=3
    )
    for _ in range(times):
        runs.finish_run(
            part,
            state=state,
            summary="",
            failure=None,
            result=result.model_dump_json(),
            notice=notice,
            pending=Pending(("webhook",)),
        )
    return part


def tried(rig: DeliveryRig, part: EndPart, *, times: int = 1) -> DeliveryState:
    """Wait until the webhook was called, and read how it stands."""

    def state() -> DeliveryState:
        record = rig.ledger.read(part.job_id)
        assert record is not None
        return record.deliveries["webhook"]

    wait_until(lambda: state().attempts >= times, within_s=20)
    return state()


def test_the_end_of_a_run_is_sent_once_and_signed(rig: DeliveryRig, receiver: Receiver) -> None:
    part = end_run(rig, receiver.url, times=2)

    state = tried(rig, part)

    (hook,) = receiver.hooks
    payload = verify(hook.headers, hook.body, SECRET)
    end = payload.run_end()
    assert state.state == "delivered"
    assert (payload["type"], payload.id) == ("run.partial", webhook_id(part.job_id))
    assert (end.run_id, end.state, end.out, end.bad_lines) == (
        part.run_id,
        "partial",
        part.out,
        3,
    )


def test_a_receiver_that_fails_gets_the_end_of_a_run_later(
    rig: DeliveryRig, receiver: Receiver
) -> None:
    receiver.statuses = [503]
    part = end_run(rig, receiver.url)

    first = tried(rig, part)
    rig.client.zadd(rig.ledger.keys.pending_deliveries, {part.job_id: 0})
    second = tried(rig, part, times=2)

    assert (first.state, second.state) == ("failed", "delivered")
    assert len({(hook.body, hook.headers["webhook-id"]) for hook in receiver.hooks}) == 1


def test_the_end_of_a_run_that_was_refused_is_a_dead_letter_that_can_be_replayed(
    rig: DeliveryRig, receiver: Receiver
) -> None:
    receiver.statuses = [410]
    part = end_run(rig, receiver.url)
    tried(rig, part)
    webhooks = Webhooks(rig.ledger)

    [dead] = webhooks.list(state="dead").deliveries
    webhooks.replay(part.job_id)
    wait_until(lambda: len(receiver.hooks) == 2)

    assert (dead.job_id, dead.webhook_id) == (part.job_id, webhook_id(part.job_id))
    assert dead.host in receiver.url
    wait_until(lambda: tried(rig, part).state == "delivered")
    assert webhooks.list().deliveries == ()


def test_a_run_that_ended_otherwise_sends_nothing(rig: DeliveryRig, receiver: Receiver) -> None:
    runs, request = RunLedger(rig.ledger), sample_run(webhook=receiver.url)
    runs.open(request)
    part = end_of(request, epoch=0)
    runs.open_part(part)
    runs.ledger.start(part.job_id, worker="w1", quarantine_after=9, dead_after=9)

    # As of a message that came late: the run was resumed meanwhile.
    runs.finish_run(
        part,
        state="cancelled",
        summary="",
        failure=None,
        result="{}",
        pending=Pending(("webhook",)),
    )

    assert rig.client.zcard(rig.ledger.keys.pending_deliveries) == 0
    assert receiver.hooks == []


def test_the_address_of_a_receiver_is_in_no_log_line() -> None:
    request = sample_run(webhook="https://hooks.example.com/s3cret")

    assert "s3cret" not in repr(request)
