"""A reply that is lost once changes nothing: the call is repeated, and each script recognises itself.

The proxy lets the request through and closes the connection in place of the reply; redis-py then
sends the same call again.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from labelyard.errors import LabelyardError
from labelyard.ledger import Isolation, Ledger, Pending, Receipt, connect
from labelyard.ledger.commands import job_digest
from labelyard.ledger.deliveries import DeliveryLedger, DeliveryOutcome
from labelyard.ledger.maintenance import MaintenanceLedger
from labelyard.ledger.webhooks import Webhooks
from labelyard.messages import Deliver, Failure
from labelyard.settings import ClientSettings
from labelyard.testing import sample_job, sample_result
from labelyard_worker.local.servers import ValkeyServer
from tests.support.proxy import TcpProxy

PAST = datetime(2020, 1, 1, tzinfo=UTC)
JOB = sample_job(job_id="the-job", deliver=Deliver(stream="events"))
OVERDUE = JOB.model_copy(update={"expires_at": PAST})
RECEIPT = Receipt(call="receipt-1", tenant=JOB.tenant, digest=job_digest(JOB))
LIMITS: dict[str, Any] = {"quarantine_after": 2, "dead_after": 2}
# Times, and what is drawn for each call.
FLEETING = {
    *("submitted_at", "published_at", "started_at", "finished_at", "images_at"),
    *("events", "event_ids", "last", "created_ms"),
}
FLEETING |= {"delivery_replayed_at"}
DRAWN = {"opener", "start_call", "ender", "replayer", "purger"}
DRAWN |= {"delivery_replayer", "delivery_purger"}

Step = Callable[[Ledger], Any]


@pytest.fixture
def settings(ledger_url: str) -> ClientSettings:
    return ClientSettings(ledger_url=ledger_url, namespace="test")


@pytest.fixture
def direct(settings: ClientSettings) -> Iterator[Ledger]:
    with closing(connect(settings)) as client:
        yield Ledger(client, settings)


@pytest.fixture
def proxied(settings: ClientSettings, valkey: ValkeyServer) -> Iterator[tuple[Ledger, TcpProxy]]:
    with ExitStack() as stack:
        proxy = stack.enter_context(TcpProxy(valkey.port))
        through = settings.model_copy(update={"ledger_url": f"redis://127.0.0.1:{proxy.port}/1"})
        client = stack.enter_context(closing(connect(through)))
        yield Ledger(client, settings), proxy


def begin(ledger: Ledger, *, worker: str = "w1", isolation: Isolation = "none") -> None:
    ledger.client.set("test:worker:w1", "[]", ex=60)
    ledger.start(JOB.job_id, worker=worker, isolation=isolation, **LIMITS, receipt=RECEIPT)


def opened(ledger: Ledger) -> None:
    ledger.open(JOB, queue="bulk")


def overdue(ledger: Ledger) -> None:
    ledger.open(OVERDUE, queue="bulk")


def running(ledger: Ledger) -> None:
    opened(ledger)
    begin(ledger)


def suspect(ledger: Ledger) -> None:
    """Open a job whose worker died once, and whose present worker is gone, too."""
    opened(ledger)
    ledger.start(JOB.job_id, worker="gone-1", **LIMITS)
    ledger.start(JOB.job_id, worker="gone-2", **LIMITS)


def dead(ledger: Ledger) -> None:
    running(ledger)
    ledger.finish(JOB.job_id, sample_result("failed", job=JOB), is_dead=True)


def owing(ledger: Ledger) -> None:
    running(ledger)
    result = sample_result(job=JOB)
    ledger.finish(JOB.job_id, result, pending=Pending(("webhook",), deliverer="w1"))


def settle(ledger: Ledger, outcome: DeliveryOutcome) -> bool:
    return DeliveryLedger(ledger, worker="w1").settle(JOB.job_id, {"webhook": outcome})


def undelivered(ledger: Ledger) -> None:
    """Finish a job whose webhook is refused."""
    owing(ledger)
    settle(ledger, DeliveryOutcome("refused", "410"))


def due(ledger: Ledger) -> None:
    running(ledger)
    ledger.client.zadd("test:due", {JOB.job_id: 1234.5})
    ledger.client.expire("test:due", 60)


def suspected(ledger: Ledger) -> None:
    """Open a job that has its worker to itself."""
    suspect(ledger)
    begin(ledger, isolation="alone")


def lost(ledger: Ledger) -> None:
    """Lose the record of one of two open jobs."""
    opened(ledger)
    ledger.open(sample_job(job_id="lost"), queue="bulk")
    ledger.client.delete("test:job:lost")


def missed(ledger: Ledger) -> None:
    """Open a job as an earlier version did, which kept no backlog."""
    opened(ledger)
    ledger.client.delete("test:backlog", "test:open:bulk")


def rated(ledger: Ledger) -> None:
    """Give the job's tenant a rate."""
    ledger.client.hset("test:tenants", JOB.tenant, '{"images_per_s": 10}')
    ledger.client.expire("test:tenants", 60)


def forget(ledger: Ledger) -> Any:
    return ledger.run(ledger.commands.forget(JOB.job_id))[1]


def nothing(ledger: Ledger) -> None:
    """Leave the ledger empty."""


def start(ledger: Ledger) -> Any:
    started = ledger.start(JOB.job_id, worker="w1", **LIMITS, receipt=RECEIPT)
    return started.verdict, started.attempt, started.deaths, started.start


def start_after_a_return(ledger: Ledger) -> Any:
    receipt = Receipt(call="receipt-2", returned_by="w1:1")
    started = ledger.start(JOB.job_id, worker="w2", **LIMITS, receipt=receipt)
    return started.verdict, started.attempt, started.deaths


@dataclass(frozen=True)
class Case:
    """A call, and the state of the ledger that it finds."""

    before: Step
    act: Step


CASES = {
    "open": Case(nothing, lambda ledger: ledger.open(JOB, queue="bulk").is_new),
    "open, with a rate": Case(rated, lambda ledger: ledger.open(JOB, queue="bulk").is_new),
    "open many": Case(
        nothing, lambda ledger: [one.is_new for one in ledger.open_many([JOB], queue="bulk")]
    ),
    "adopt": Case(nothing, lambda ledger: ledger.adopt(JOB, queue="bulk")),
    "start": Case(opened, start),
    "start, the worker is gone": Case(suspect, start),
    "start, the time is over": Case(overdue, start),
    "start, the message was given back": Case(running, start_after_a_return),
    "crowd": Case(suspected, lambda ledger: ledger.crowd(JOB.job_id, worker="w1")),
    "retry a suspect after a death": Case(
        suspected,
        lambda ledger: ledger.retry(JOB.job_id, worker="w1", delay_s=0, death="broke", start=3),
    ),
    "hand back": Case(running, lambda ledger: ledger.hand_back(JOB.job_id, worker="w1", start=1)),
    "retry": Case(
        running, lambda ledger: ledger.retry(JOB.job_id, worker="w1", delay_s=0, start=1)
    ),
    "retry after a death": Case(
        running,
        lambda ledger: ledger.retry(JOB.job_id, worker="w1", delay_s=0, death="broke", start=1),
    ),
    "finish": Case(
        running,
        lambda ledger: ledger.finish(
            JOB.job_id, sample_result(job=JOB), pending=Pending(("webhook",))
        ),
    ),
    "finish as a dead letter": Case(
        running,
        lambda ledger: ledger.finish(JOB.job_id, sample_result("failed", job=JOB), is_dead=True),
    ),
    "cancel": Case(running, lambda ledger: ledger.cancel(JOB.job_id)),
    "expire": Case(overdue, lambda ledger: ledger.expire(JOB.job_id)),
    "expire many": Case(
        overdue, lambda ledger: MaintenanceLedger(ledger).expire_many([JOB.job_id])
    ),
    "replay": Case(dead, lambda ledger: ledger.replay(JOB.job_id) is not None),
    "purge": Case(dead, lambda ledger: ledger.purge(JOB.job_id)),
    "forget": Case(running, forget),
    "forget a dead letter": Case(dead, forget),
    "cancel many": Case(running, lambda ledger: ledger.cancel_many([JOB.job_id])),
    "drop lost": Case(
        lost, lambda ledger: bool(ledger.run(ledger.commands.drop_lost("bulk", offset=0, limit=9)))
    ),
    "add missed": Case(
        missed, lambda ledger: ledger.run(ledger.commands.add_missed(offset=0, limit=9))[0]
    ),
    "sent": Case(due, lambda ledger: ledger.sent(JOB.job_id, due=1234.5)),
    "sent many": Case(
        due, lambda ledger: MaintenanceLedger(ledger).sent_many([(JOB.job_id, None)])
    ),
    "delivered": Case(owing, lambda ledger: settle(ledger, DeliveryOutcome("delivered"))),
    "delivery failed": Case(owing, lambda ledger: settle(ledger, DeliveryOutcome("failed", "503"))),
    "delivery postponed": Case(
        owing, lambda ledger: settle(ledger, DeliveryOutcome("postponed", "busy"))
    ),
    "delivery refused": Case(
        owing, lambda ledger: settle(ledger, DeliveryOutcome("refused", "410"))
    ),
    "delivery replayed": Case(
        undelivered, lambda ledger: Webhooks(ledger).replay(JOB.job_id) is None
    ),
    "dead delivery replayed": Case(
        undelivered,
        lambda ledger: Webhooks(ledger)._replay(JOB.job_id, kind="webhook", states=("dead",)),
    ),
    "delivery purged": Case(undelivered, lambda ledger: Webhooks(ledger).purge(JOB.job_id) is None),
    "delivery held": Case(
        owing, lambda ledger: DeliveryLedger(ledger, worker="w1").hold(JOB.job_id)
    ),
    "refuse": Case(
        nothing, lambda ledger: ledger.refuse(JOB.job_id, "{}", Failure.of(LabelyardError("x")))
    ),
}


def state_of(client: redis.Redis) -> dict[str, Any]:
    """Read everything in the ledger but times and drawn ids."""
    state: dict[str, Any] = {}
    for key in client.scan_iter():
        match client.type(key):
            case "hash":
                fields: dict[str, str] = client.hgetall(key)
                state[key] = {
                    name: name if name in FLEETING | DRAWN else timeless(value)
                    for name, value in fields.items()
                }
            case "zset":
                state[key] = sorted(client.zrange(key, 0, -1))
            case "list":
                state[key] = client.lrange(key, 0, -1)
            case "stream":
                state[key] = [fields for _, fields in client.xrange(key)]
            case _:
                state[key] = client.get(key)
        assert client.ttl(key) > 0
    return state


def timeless(value: str) -> str:
    """Leave out when a delivery is tried next, which is partly random, and when it was given up."""
    return re.sub(r'"(?:next_try|died)_at":[0-9.e+]+', "", value)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_call_whose_reply_is_lost_ends_as_one_whose_reply_came(
    case: Case, direct: Ledger, proxied: tuple[Ledger, TcpProxy]
) -> None:
    ledger, proxy = proxied
    case.before(direct)
    expected = case.act(direct)
    uncut = state_of(direct.client)
    direct.client.flushdb()
    case.before(direct)
    ledger.client.ping()
    with direct.client.monitor() as monitor:
        proxy.lose_next_reply()

        answer = case.act(ledger)

        direct.client.ping()
        seen = commands_until_ping(monitor)

    assert (answer, state_of(direct.client)) == (expected, uncut)
    assert has_repetition(seen), "no call was repeated: the reply was not lost"


def commands_until_ping(monitor: Any) -> list[str]:
    """Read the commands that the server executed, except those of scripts."""
    seen = []
    while (command := monitor.next_command()["command"]) != "PING":
        seen.append(command)
    return seen


def has_repetition(commands: list[str]) -> bool:
    """Return whether a call of a script came twice."""
    calls = [command for command in commands if command.startswith(("EVALSHA", "SCRIPT"))]
    return len(set(calls)) < len(calls)


def test_a_death_is_counted_once_although_its_worker_tells_it_again_later(direct: Ledger) -> None:
    """The worker waits for the ledger, and then calls anew: no longer the same call."""
    running(direct)
    for _ in range(3):
        direct.retry(JOB.job_id, worker="w1", delay_s=0, death="broke", start=1)

    record = direct.read(JOB.job_id)
    assert record is not None
    assert (record.deaths, record.last_death) == (1, "broke")


def test_the_end_of_an_attempt_that_is_told_late_does_not_end_the_next_one(
    direct: Ledger,
) -> None:
    running(direct)
    direct.retry(JOB.job_id, worker="w1", delay_s=0, death="broke", start=1)
    direct.start(JOB.job_id, worker="w2", **LIMITS)
    direct.hand_back(JOB.job_id, worker="w2", start=2)

    direct.retry(JOB.job_id, worker="w1", delay_s=0, death="broke", start=1)

    record = direct.read(JOB.job_id)
    assert record is not None
    assert record.deaths == 1


def test_a_release_that_the_ledger_forgot_the_start_of_is_taken(direct: Ledger) -> None:
    """It came back without its last second: the attempt was the sixth, and is the fourth again."""
    opened(direct)
    direct.retry(JOB.job_id, worker="w1", delay_s=0, death="broke", start=6)

    direct.start(JOB.job_id, worker="w1", **LIMITS)
    direct.retry(JOB.job_id, worker="w1", delay_s=0, death="broke", start=7)

    record = direct.read(JOB.job_id)
    assert record is not None
    assert record.deaths == 2


def test_a_retry_that_was_set_meanwhile_survives_the_note_that_the_message_was_sent(
    direct: Ledger,
) -> None:
    due(direct)
    direct.client.zadd("test:due", {JOB.job_id: 9999999999.0})

    direct.sent(JOB.job_id, due=1234.5)

    assert direct.client.zscore("test:due", JOB.job_id) == 9999999999.0


def test_a_result_that_is_told_again_does_not_end_the_replayed_job(direct: Ledger) -> None:
    running(direct)
    command = direct.commands.finish(JOB.job_id, state="failed", result="{}", is_dead=True)
    direct.run(command)
    direct.replay(JOB.job_id)

    answer = direct.run(command)

    assert answer == ["finished", "failed"]
    assert direct.state(JOB.job_id) == "pending"
