"""Names of kombu, celery and redis-py that broker/ overrides or relies on without a promise.

A failure here is no bug yet: an upgrade changed something that ``broker/`` was written
against. Each entry says what to look at. When it still holds, put the new digest into the table.
"""

import inspect
from hashlib import sha256
from importlib import import_module
from importlib.metadata import version
from typing import Any, NamedTuple

import pytest
from kombu.transport import TRANSPORT_ALIASES
from pydantic import BaseModel
from pydantic._internal._model_construction import ModelMetaclass
from redis._parsers import _HiredisParser, _RESP3Parser
from redis.connection import AbstractConnection, Connection

from labelyard.messages import Job
from labelyard_worker.broker import (
    amqp_transport,
    channel,
    poller,
    qos,
    rabbitmq,
    remote_control,
    thread_pool,
    transport,
)


class Relied(NamedTuple):
    """A function of a library whose source was read and relied upon.

    Attributes:
        digest: Start of the SHA-256 of its source.
        name: Where it is.
        advice: What we take from it, and what to check when it has changed.
    """

    digest: str
    name: str
    advice: str


CHANNEL = "kombu.transport.redis:Channel"
POLLER = "kombu.transport.redis:MultiChannelPoller"
QOS = "kombu.transport.redis:QoS"
REQUEST = "celery.worker.request:Request"

CLAIM_ADVICE = "channel.RedisChannel replaces it; carry over what is new apart from BRPOP itself"
RECORD_ADVICE = "claim.CLAIM writes the same record; restore.py and older workers must read it"
GATE_ADVICE = "amqp_transport builds on it: no exception that a message causes may leave it"
CALL_ADVICE = "calls.TaskCall writes what it reads: look for new fields and new exceptions"
ACK_ADVICE = "acks.Acks forgets what ack added, before each poll and when the channel closes"
POLLER_ADVICE = "poller.PushPoller builds on it: pushes must be read while no claim is on its way"
POOL_ADVICE = "thread_pool.TaskPool replaces it; every escape must reach on_failure once"
REQUEST_ADVICE = (
    "thread_pool.TaskPool calls it; check that a lost worker still gives its message back"
)
BEAT_ADVICE = (
    "visibility_heartbeat relies on which messages are delivered, acknowledged and restored"
)
STEP_ADVICE = "HeartbeatStep is started at each connect, and must end after the pool only"

RELIED = [
    Relied("06723d707ddf2240", f"{CHANNEL}._brpop_start", CLAIM_ADVICE),
    Relied("c42518699709f2df", f"{CHANNEL}._brpop_read", CLAIM_ADVICE),
    Relied(
        "f189bdebe2436ccd",
        f"{CHANNEL}.__init__",
        "it must still map BRPOP to _brpop_read and ping first",
    ),
    Relied(
        "101e9b9cdad44b88",
        f"{CHANNEL}.close",
        "it must still read an open claim before it gives back",
    ),
    Relied(
        "e9a4295085a8fb90",
        f"{CHANNEL}._connparams",
        "channel sets protocol=3 for the claiming connection",
    ),
    Relied(
        "d6e689f654ffec44",
        f"{CHANNEL}._get_pool",
        "visibility_heartbeat opens its own pool with it",
    ),
    Relied(
        "f3997660680dd00f", f"{CHANNEL}._q_for_pri", "channel names the lists of a queue with it"
    ),
    Relied("8b430df94e45b5b0", f"{CHANNEL}._do_restore_message", RECORD_ADVICE),
    Relied("35c655f6ecc62fe6", f"{QOS}.append", RECORD_ADVICE),
    Relied("58e161d81b6fe18d", f"{QOS}.restore_by_tag", RECORD_ADVICE),
    Relied("1bc15a4ddf541af6", f"{QOS}.ack", ACK_ADVICE),
    Relied("bc5b3f9d66b99d45", "kombu.asynchronous.hub:Hub.create_loop", ACK_ADVICE),
    Relied("26368e1cadfc4ff9", "kombu.transport.virtual.base:Channel.close", ACK_ADVICE),
    Relied("747a02434344d1a6", f"{QOS}.reject", BEAT_ADVICE),
    Relied("d4a4a40a3eaf9f23", f"{QOS}.restore_visible", BEAT_ADVICE),
    Relied("f884d8db8d6405e1", "kombu.transport.virtual.base:QoS", BEAT_ADVICE),
    Relied("0fec962694938b61", "kombu.transport.virtual.base:Channel.basic_consume", RECORD_ADVICE),
    Relied("799e242f3ec53863", "kombu.transport.virtual.base:Transport._deliver", RECORD_ADVICE),
    Relied("85724582464a615f", f"{POLLER}._register_BRPOP", POLLER_ADVICE),
    Relied("de7b4600acf540fb", f"{POLLER}._update_brpop_polling", POLLER_ADVICE),
    Relied("0dc592e46353a0fc", f"{POLLER}.maybe_check_brpop_health", POLLER_ADVICE),
    Relied("414f76caaa675bc0", f"{POLLER}.on_poll_start", POLLER_ADVICE),
    Relied("c0d99f241607f845", f"{POLLER}.on_readable", POLLER_ADVICE),
    Relied("e0f960e0c3288d3f", f"{POLLER}.get", POLLER_ADVICE),
    Relied("4fc30e8fa54df374", "kombu.transport.redis:Transport.__init__", POLLER_ADVICE),
    Relied(
        "4b835642e4a99425",
        "kombu.transport.redis:Transport.register_with_event_loop",
        POLLER_ADVICE,
    ),
    Relied("9cca18119cb946cd", "celery.concurrency.thread:TaskPool", POOL_ADVICE),
    Relied("ce718476be883f46", "celery.concurrency.thread:ApplyResult", POOL_ADVICE),
    Relied("587f70580295464c", "celery.concurrency.base:apply_target", POOL_ADVICE),
    Relied("7979562da58f4266", f"{REQUEST}.execute_using_pool", REQUEST_ADVICE),
    Relied("8d11e320facdb072", f"{REQUEST}.on_success", REQUEST_ADVICE),
    Relied("21736ec661cd60d7", f"{REQUEST}.on_failure", REQUEST_ADVICE),
    Relied("08be2378bcc6c017", f"{REQUEST}.reject", REQUEST_ADVICE),
    Relied("5ee69325b498e311", f"{REQUEST}.terminate", REQUEST_ADVICE),
    Relied(
        "e0165bf1d620fb60",
        "celery.worker.consumer.tasks:Tasks.start",
        "visibility_heartbeat reads task_consumer",
    ),
    Relied("af1e52bcafd94ef2", "celery.bootsteps:StartStopStep.terminate", STEP_ADVICE),
    Relied("a081dc7db4a98b33", "celery.worker.consumer.consumer:Consumer.shutdown", STEP_ADVICE),
    Relied(
        "4f84dbfff329d28f",
        "celery.worker.consumer.consumer:Consumer.on_connection_error_after_connected",
        "rabbitmq.RabbitConsumer closes the events' connection before it",
    ),
    Relied(
        "61240b3933316f58",
        "kombu.entity:Queue.consume",
        "rabbitmq.PrefetchQueue sets the channel's prefetch count before it",
    ),
    Relied("53bd1abe3456722d", "celery.worker.consumer.consumer:Consumer.start", STEP_ADVICE),
    Relied("77ba238ed08f0afe", "amqp.method_framing:frame_handler", GATE_ADVICE),
    Relied("2656a7f69b1c1e8a", "amqp.channel:Channel._on_basic_deliver", GATE_ADVICE),
    Relied(
        "ab4ee7a70ede7889", "amqp.abstract_channel:AbstractChannel.dispatch_method", GATE_ADVICE
    ),
    Relied("f20afb7683593c81", "kombu.transport.pyamqp:Message", GATE_ADVICE),
    Relied("bd56cb3ffa7affcd", "kombu.message:Message.__init__", CALL_ADVICE),
    Relied("efdf47149cde3635", f"{REQUEST}.__init__", CALL_ADVICE),
    Relied(
        "292c5a681f10ade7",
        "celery.worker.consumer.consumer:Consumer.create_task_handler",
        CALL_ADVICE,
    ),
    Relied(
        "5132788b1bc86f26",
        f"{REQUEST}.revoked",
        "remote_control.UnrevokableRequest replaces it: Celery must drop no message by itself",
    ),
]


def find(name: str) -> Any:
    """Look a name up; the error of a missing one names the missing part."""
    module, _, path = name.partition(":")
    found = import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("relied", RELIED, ids=lambda relied: relied.name)
def test_what_we_override_is_what_we_read(relied: Relied) -> None:
    library = relied.name.partition(".")[0]

    source = inspect.getsource(find(relied.name))

    digest = sha256(source.encode()).hexdigest()[:16]
    assert digest == relied.digest, (
        f"{relied.name} is not the same in {library} {version(library)}: {relied.advice}. "
        f"When that holds and tests/integration passes, write {digest} into RELIED."
    )


OVERRIDDEN = [
    (qos.UnackedMessages, ["append", "ack", "reject", "restore_unacked_once", "restore_visible"]),
    (amqp_transport.AmqpChannel, ["basic_consume", "dispatch_method", "_on_basic_deliver"]),
    (remote_control.UnrevokableRequest, ["revoked"]),
    (channel.RedisChannel, ["basic_consume", "_brpop_start", "_brpop_read", "_connparams"]),
    (poller.PushPoller, ["on_poll_start", "on_readable", "get"]),
    (transport.Transport, ["register_with_event_loop"]),
    (thread_pool.TaskPool, ["terminate_job", "on_apply"]),
    (rabbitmq.PrefetchQueue, ["consume"]),
    (rabbitmq.RabbitConsumer, ["on_connection_error_after_connected"]),
]


@pytest.mark.parametrize(("ours", "names"), OVERRIDDEN, ids=lambda value: str(value))
def test_what_we_override_is_there_to_be_called(ours: type, names: list[str]) -> None:
    parents = ours.__mro__[1:]

    missing = [name for name in names if not any(name in vars(parent) for parent in parents)]

    assert not missing, (
        f"the parents of {ours.__qualname__} have no {missing} any more: nobody calls ours. "
        "Look for the new name in the library's change log."
    )


@pytest.mark.parametrize("parser", [_HiredisParser, _RESP3Parser])
def test_redis_py_tells_us_of_pushes(parser: type) -> None:
    advice = "channel._track and read_push read pushes through it; see docs/decisions/0001"
    assert hasattr(parser, "set_invalidation_push_handler"), advice
    for reader in (parser.read_response, AbstractConnection.read_response):  # type: ignore[attr-defined]
        assert "push_request" in inspect.signature(reader).parameters, advice
    assert {"_sock", "_parser"} <= vars(Connection()).keys(), advice


def test_kombu_finds_our_transports_by_their_aliases() -> None:
    transport.install()

    amqp_transport.install()

    schemes = (transport.ALIAS, transport.TLS_ALIAS, "labelyard-amqp", "labelyard-amqps")
    found = [TRANSPORT_ALIASES[alias] for alias in schemes]
    assert [find(name) for name in found] == [
        *(transport.Transport, transport.TLSTransport),
        *(amqp_transport.AmqpTransport, amqp_transport.AmqpTLSTransport),
    ]


def test_pydantic_makes_models_through_the_metaclass_that_ours_extends() -> None:
    """Otherwise a model that is refused would raise pydantic's error in place of ours."""
    assert type(BaseModel) is ModelMetaclass
    assert "__call__" in vars(type(Job))
    assert type(Job).__mro__[1] is ModelMetaclass
