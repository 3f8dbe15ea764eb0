"""Permissions of the Redis users: each command of the ledger and the broker is tried on a key of the doctor."""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from labelyard.doctor.examination import Examination, describe
from labelyard.doctor.report import Finding, FindingKind, Severity
from labelyard.doctor.servers import RedisRole, open_client
from labelyard.ledger.keys import LedgerKeys
from labelyard.queues import queue_name

#: The doctor deletes its keys; should it be killed before, they expire.
KEY_TTL_S: Final = 60
SCRIPT: Final = "return 1"

COMMANDS_REFUSED: Final = FindingKind(
    "commands_refused",
    "permissions",
    Severity.SERIOUS,
    "The {role} at {place} refuses the user {user} what jobs need: {refused}.",
    "Run ACL SETUSER {user} {grants}, and ACL SAVE, on that server, or set {setting} to another "
    "user.",
)
WORKER_COMMANDS_REFUSED: Final = FindingKind(
    "worker_commands_refused",
    "permissions",
    Severity.WARNING,
    "The {role} at {place} refuses the user {user} what workers need: {refused}.",
    "If workers connect as this user, run ACL SETUSER {user} {grants}, and ACL SAVE; a user of "
    "producers alone needs none of it.",
    in_worker=Severity.SERIOUS,
)
CLIENT_TRACKING_UNSUPPORTED: Final = FindingKind(
    "client_tracking_unsupported",
    "permissions",
    Severity.SERIOUS,
    "The broker at {place} does not know CLIENT TRACKING with RESP3 ({why}): no worker starts. "
    "Twemproxy, Envoy and some managed servers are like that.",
    "Set LABELYARD_BROKER_URL to the server itself and not to its proxy, or, at the risk of "
    "losing about one job in a thousand when a worker is killed, LABELYARD_ATOMIC_CLAIM=0.",
)
KINDS: Final = (COMMANDS_REFUSED, WORKER_COMMANDS_REFUSED, CLIENT_TRACKING_UNSUPPORTED)


@dataclass(frozen=True, slots=True)
class Trial:
    """Command that is tried.

    Attributes:
        right: Right that it needs, as ACL SETUSER takes it.
        call: The command with its arguments; ``KEY`` stands for a key of the doctor.
    """

    right: str
    call: tuple[str, ...]


def _trials(*calls: str) -> tuple[Trial, ...]:
    """Read trials from the text of their commands; a subcommand is written as ``client|id``."""
    trials = []
    for call in calls:
        command, *arguments = call.split(" ")
        trials.append(Trial(f"+{command.lower()}", (*command.upper().split("|"), *arguments)))
    return tuple(trials)


# Each writes into keys that exist with a TTL, or fails for their type: the right is checked first.
#: Commands of the scripts in ledger/scripts, and of the clients of the ledger.
LEDGER_TRIALS: Final = _trials(
    "GET KEY",
    "EXISTS KEY",
    "EXPIRE KEY 60",
    "TTL KEY",
    "PTTL KEY",
    "INCRBY KEY 1",
    "DECRBY KEY 1",
    "MGET KEY",
    "HSET KEY f 1",
    "HSETNX KEY f 1",
    "HGET KEY f",
    "HMGET KEY f",
    "HGETALL KEY",
    "HVALS KEY",
    "HINCRBY KEY f 1",
    "HDEL KEY f",
    "HEXISTS KEY f",
    "HLEN KEY",
    "SADD KEY m",
    "SISMEMBER KEY m",
    "ZADD KEY 1 m",
    "ZSCORE KEY m",
    "ZCARD KEY",
    "ZCOUNT KEY 0 1",
    "ZRANGE KEY 0 0",
    "ZREVRANGE KEY 0 0",
    "ZRANGEBYSCORE KEY 0 1",
    "ZREMRANGEBYSCORE KEY 0 1",
    "ZREMRANGEBYRANK KEY 0 0",
    "ZPOPMIN KEY",
    "ZREM KEY m",
    "XADD KEY * f 1",
    "XDEL KEY 1-1",
    "XRANGE KEY - +",
    "XREVRANGE KEY + -",
    "XTRIM KEY MAXLEN 1",
    "XREAD STREAMS KEY 0",
    "XREADGROUP GROUP g c STREAMS KEY >",
    "XGROUP|CREATE KEY g 0",
    "XGROUP|CREATECONSUMER KEY g c",
    "XGROUP|DELCONSUMER KEY g c",
    "XGROUP|DESTROY KEY g",
    "XGROUP|SETID KEY g 0",
    "XINFO|CONSUMERS KEY g",
    "XINFO|GROUPS KEY",
    "XINFO|STREAM KEY",
    "XPENDING KEY g",
    "XCLAIM KEY g c 0 1-1",
    "XAUTOCLAIM KEY g c 0 0",
    "XACK KEY g 1-1",
    "LINDEX KEY 0",
    "LREM KEY 0 m",
    "TIME",
    "SCRIPT|LOAD " + SCRIPT.replace(" ", "\0"),
    "PUBLISH CHANNEL 1",
)
#: Commands that a worker wakes up by.
TRACKING_COMMANDS: Final = (
    ("CLIENT", "TRACKING", "ON", "OPTIN", "NOLOOP"),
    ("CLIENT", "CACHING", "YES"),
)
#: Commands of producers on a Redis broker.
PUBLISH_TRIALS: Final = _trials("LLEN KEY", "LPUSH KEY m")
#: Commands of workers on a Redis broker: claim, record, acknowledge, restore, and ``why``.
CONSUME_TRIALS: Final = _trials(
    "GET KEY",
    "EXISTS KEY",
    "EXPIRE KEY 60",
    "TTL KEY",
    "DECR KEY",
    "RPOP KEY",
    "LPOP KEY",
    "RPUSH KEY m",
    "LINDEX KEY 0",
    "LRANGE KEY 0 0",
    "LREM KEY 0 m",
    "HSET KEY f 1",
    "HGET KEY f",
    "HMGET KEY f",
    "HGETALL KEY",
    "HINCRBY KEY f 1",
    "HDEL KEY f",
    "SADD KEY m",
    "SMEMBERS KEY",
    "SISMEMBER KEY m",
    "SREM KEY m",
    "ZADD KEY 1 m",
    "ZREM KEY m",
    "ZCARD KEY",
    "ZSCORE KEY m",
    "ZRANGE KEY 0 0",
    "ZRANGEBYSCORE KEY 0 1",
    "ZPOPMIN KEY",
    "TIME",
)


def check_ledger_rights(
    role: RedisRole, client: "redis.Redis", exam: Examination
) -> Iterator[Finding]:
    """Find commands of the ledger that its user may not run."""
    keys = LedgerKeys(exam.settings.namespace)
    key, channel = keys.doctor(secrets.token_hex(8)), keys.done_channel("doctor")
    refused = refused_rights(client, LEDGER_TRIALS, key=key, channel=channel)
    refused |= _refused_script(client, key)
    refused |= _refused_subscription(client, channel)
    if exam.settings.durable_writes == "fsync":
        refused |= _refused_call(client, "+waitaof", "WAITAOF", 0, 0, 1)
    elif exam.settings.durable_writes == "replica":
        refused |= _refused_call(client, "+wait", "WAIT", 0, 1)
    pattern = f"{exam.settings.namespace}:*"
    yield from _findings(COMMANDS_REFUSED, role, exam, refused, pattern=pattern)


def check_broker_rights(
    role: RedisRole, client: "redis.Redis", exam: Examination
) -> Iterator[Finding]:
    """Find commands of the broker that its user may not run, and check CLIENT TRACKING."""
    key = queue_name(exam.settings.namespace, f"doctor-{secrets.token_hex(8)}")
    pattern = queue_name(exam.settings.namespace, "*")
    refused = refused_rights(client, PUBLISH_TRIALS, key=key)
    yield from _findings(COMMANDS_REFUSED, role, exam, refused, pattern=pattern)
    refused = refused_rights(client, CONSUME_TRIALS, key=key) - refused
    refused |= _refused_script(client, key)
    if exam.settings.atomic_claim:
        try:
            try_client_tracking(role)
        except NoPermissionError:
            refused |= {"+client|tracking +client|caching"}
        except (RedisError, OSError) as error:
            yield CLIENT_TRACKING_UNSUPPORTED.at(place=role.place, why=describe(error))
    yield from _findings(WORKER_COMMANDS_REFUSED, role, exam, refused, pattern=pattern)


def refused_rights(
    client: "redis.Redis", trials: Sequence[Trial], *, key: str, channel: str = ""
) -> set[str]:
    """Try commands on *key*, which is deleted; return the rights that the user lacks.

    The key is a string with a TTL: commands of other types fail for its type, after their right
    was checked, and so write nothing.
    """
    refused = _refused_call(client, "+set", "SET", key, "1", "EX", KEY_TTL_S)
    if refused:  # without that key others could leave one behind that has no TTL
        return refused
    values = {"KEY": key, "CHANNEL": channel}
    for trial in trials:
        call = [values.get(part, part.replace("\0", " ")) for part in trial.call]
        refused |= _refused_call(client, trial.right, *call)
    refused |= _refused_transaction(client)
    return refused | _refused_call(client, "+del", "DEL", key)


def _refused_call(client: "redis.Redis", right: str, *call: str | int) -> set[str]:
    try:
        client.execute_command(*call)  # type: ignore[no-untyped-call]
    except NoPermissionError as error:
        return {_right_in(error, right)}
    except ResponseError:
        return set()  # the wrong type, or a command that this server does not know
    return set()


def _refused_transaction(client: "redis.Redis") -> set[str]:
    try:
        with client.pipeline(transaction=True) as pipeline:
            pipeline.time()
            pipeline.execute()
    except NoPermissionError as error:
        return {_right_in(error, "+multi +exec")}
    except ResponseError:
        return set()
    return set()


def _refused_script(client: "redis.Redis", key: str) -> set[str]:
    refused = _refused_call(client, "+eval", "EVAL", SCRIPT, 1, key)
    return refused | _refused_call(client, "+evalsha", "EVALSHA", "0" * 40, 1, key)


def _refused_subscription(client: "redis.Redis", channel: str) -> set[str]:
    pubsub: Any = client.pubsub()  # type: ignore[no-untyped-call]
    try:
        pubsub.subscribe(channel)
        pubsub.get_message(timeout=1.0)
    except NoPermissionError as error:
        return {_right_in(error, "+subscribe +unsubscribe")}
    finally:
        pubsub.close()
    return set()


def _right_in(error: Exception, right: str) -> str:
    """Return the right that a refusal is about: a command, the keys, or the channels."""
    text = str(error)
    if "channel" in text:
        return "&"
    return "~" if "access a key" in text or "of the keys" in text else right


def try_client_tracking(role: RedisRole) -> None:
    """Switch on CLIENT TRACKING for a connection of its own, with the commands of a claim.

    Raises:
        RedisError: The server, its proxy or the user's rights do not allow it.
    """
    with open_client(role, protocol=3, max_connections=1) as client:
        pool = client.connection_pool
        connection: Any = pool.get_connection()
        try:
            for command in TRACKING_COMMANDS:
                connection.send_command(*command)
                connection.read_response()
        finally:
            connection.disconnect()
            pool.release(connection)


def _findings(
    kind: FindingKind, role: RedisRole, exam: Examination, refused: set[str], *, pattern: str
) -> Iterator[Finding]:
    """Report rights that are missing, with the ACL rules that grant them."""
    if not refused:
        return
    rules = {"~": f"~{pattern}", "&": f"&{exam.settings.namespace}:*"}
    names = {"~": f"the keys {pattern}", "&": f"the channels {exam.settings.namespace}:*"}
    yield kind.at(
        is_worker=exam.is_worker,
        role=role.name,
        place=role.place,
        user=role.user,
        setting=role.setting,
        refused=", ".join(names.get(one, command_of(one)) for one in sorted(refused)),
        grants=" ".join(rules.get(one, one) for one in sorted(refused)),
    )


def command_of(right: str) -> str:
    """Write the commands of a right as a person types them."""
    return right.removeprefix("+").replace(" +", ", ").replace("|", " ").upper()
