"""RabbitMQ as the broker: connection, rights, and the arguments of its queues."""

import secrets
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from labelyard.doctor.examination import ANSWER_S, Examination, describe
from labelyard.doctor.report import Finding, FindingKind, Severity
from labelyard.queues import Queue, kombu_queues, queue_name

RABBITMQ_REACHED: Final = FindingKind(
    "rabbitmq_reached", "rabbitmq", Severity.OK, "RabbitMQ {version} at {place} answers."
)
RABBITMQ_UNREACHABLE: Final = FindingKind(
    "rabbitmq_unreachable",
    "rabbitmq",
    Severity.SERIOUS,
    "RabbitMQ at {place} gave no usable answer: {why}.",
    "Start it, open the way to it, or set LABELYARD_BROKER_URL to its address.",
)
RABBITMQ_LOGIN_REFUSED: Final = FindingKind(
    "rabbitmq_login_refused",
    "rabbitmq",
    Severity.SERIOUS,
    "RabbitMQ at {place} refused user, password or virtual host: {why}.",
    "Set LABELYARD_BROKER_URL to amqp://user:password@host:5672/vhost with the right ones "
    "(rabbitmqctl authenticate_user, list_vhosts, set_permissions).",
)
RABBITMQ_RIGHTS_MISSING: Final = FindingKind(
    "rabbitmq_rights_missing",
    "rabbitmq",
    Severity.SERIOUS,
    "RabbitMQ at {place} refuses its user to {action}: {why}.",
    "Run rabbitmqctl set_permissions -p VHOST USER with configure, write and read rights that "
    "match {pattern}, and write rights on the default exchange (amq.default).",
)
RABBITMQ_QUEUE_DIFFERS: Final = FindingKind(
    "rabbitmq_queue_differs",
    "rabbitmq",
    Severity.SERIOUS,
    "The queue {queue} was declared with other arguments: {why}. No worker or producer can use it.",
    "Drain it, run rabbitmqctl delete_queue {queue}, and let the next worker declare it; or set "
    "LABELYARD_NAMESPACE to another name.",
)
RABBITMQ_QUEUE_NEW: Final = FindingKind(
    "rabbitmq_queue_new",
    "rabbitmq",
    Severity.OK,
    "The queue {queue} does not exist yet; the first worker or producer declares it.",
)
RABBITMQ_LIBRARIES_MISSING: Final = FindingKind(
    "rabbitmq_libraries_missing",
    "rabbitmq",
    Severity.SERIOUS,
    "LABELYARD_BROKER_URL names RabbitMQ, whose libraries are not installed ({why}).",
    "Run pip install 'labelyard[rabbitmq]'.",
)
KINDS: Final = (
    RABBITMQ_REACHED,
    RABBITMQ_UNREACHABLE,
    RABBITMQ_LOGIN_REFUSED,
    RABBITMQ_RIGHTS_MISSING,
    RABBITMQ_QUEUE_DIFFERS,
    RABBITMQ_QUEUE_NEW,
    RABBITMQ_LIBRARIES_MISSING,
)


def examine_rabbitmq(exam: Examination) -> Iterator[Finding]:
    """Connect to RabbitMQ, try the user's rights, and compare the queues with ours."""
    try:
        import kombu  # noqa: F401 - checked before it is used
        from amqp import exceptions as amqp_errors  # type: ignore[import-untyped]
    except ImportError as error:
        yield RABBITMQ_LIBRARIES_MISSING.at(why=describe(error))
        return
    url = exam.settings.broker_url
    place = places_of(url)
    connection = open_connection(url)
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=ANSWER_S)
        properties = connection.connection.server_properties
        yield RABBITMQ_REACHED.at(place=place, version=properties.get("version", ""))
        yield from _check_rights(connection, exam, place)
        yield from _check_queues(connection, exam, place)
    except (amqp_errors.AccessRefused, amqp_errors.NotAllowed) as error:
        yield RABBITMQ_LOGIN_REFUSED.at(place=place, why=describe(error))
    except Exception as error:  # noqa: BLE001 - kombu and amqp raise a dozen kinds
        cause = error.__cause__ or error
        is_login = isinstance(cause, amqp_errors.AccessRefused | amqp_errors.NotAllowed)
        kind = RABBITMQ_LOGIN_REFUSED if is_login else RABBITMQ_UNREACHABLE
        yield kind.at(place=place, why=describe(cause))
    finally:
        connection.collect()  # no farewell to a server that may not answer


def open_connection(url: str) -> Any:
    """Open a connection with bounded waits; it connects when it is used."""
    from kombu import Connection

    return Connection(
        url,
        connect_timeout=ANSWER_S,
        transport_options={"read_timeout": ANSWER_S, "write_timeout": ANSWER_S},
    )


def places_of(url: str) -> str:
    """Name hosts and ports of an AMQP address, or several, without user and password."""
    parts = [urlsplit(one) for one in url.split(";")]
    return ", ".join(f"{one.hostname or 'localhost'}:{one.port or 5672}" for one in parts)


def count_messages(exam: Examination) -> dict[str, int]:
    """Count the messages in each queue that exists; a producer's connection would declare them.

    Raises:
        Exception: RabbitMQ gave no usable answer, or its libraries are not installed.
    """
    from amqp.exceptions import NotFound  # type: ignore[import-untyped]

    connection = open_connection(exam.settings.broker_url)
    counts = {}
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=ANSWER_S)
        for queue in Queue:
            name = queue_name(exam.settings.namespace, queue)
            try:
                declared = connection.channel().queue_declare(queue=name, passive=True)
                counts[queue.value] = int(declared.message_count)
            except NotFound:
                counts[queue.value] = 0
    finally:
        connection.collect()
    return counts


def _check_rights(connection: Any, exam: Examination, place: str) -> Iterator[Finding]:
    """Declare, fill, read and delete a queue of the doctor, which ends with its connection."""
    from amqp.exceptions import AccessRefused
    from kombu import Exchange
    from kombu import Queue as KombuQueue

    name = queue_name(exam.settings.namespace, f"doctor-{secrets.token_hex(8)}")
    pattern = queue_name(exam.settings.namespace, "*")
    channel = connection.channel()
    queue = KombuQueue(
        name, Exchange(""), routing_key=name, durable=False, exclusive=True, auto_delete=True
    )(channel)
    action = "declare a queue"
    try:
        queue.declare()
        action = "publish to the default exchange"
        producer = connection.Producer(channel)
        producer.publish("{}", routing_key=name, retry=False)
        action = "read from a queue"
        queue.get(no_ack=True)
        action = "delete a queue"
        queue.delete()
    except AccessRefused as error:
        yield RABBITMQ_RIGHTS_MISSING.at(
            place=place, action=action, why=describe(error), pattern=pattern
        )


def _check_queues(connection: Any, exam: Examination, place: str) -> Iterator[Finding]:
    """Declare again the queues that exist: RabbitMQ compares arguments, and changes nothing."""
    from amqp.exceptions import (
        AccessRefused,
        NotFound,
        PreconditionFailed,
        ResourceLocked,
    )

    for queue in kombu_queues(exam.settings.namespace, exam.settings.broker_url):
        channel = connection.channel()  # a refusal closes it
        try:
            channel.queue_declare(queue=queue.name, passive=True)
            channel.queue_declare(
                queue=queue.name, durable=True, auto_delete=False, arguments=queue.queue_arguments
            )
            channel.close()
        except NotFound:
            yield RABBITMQ_QUEUE_NEW.at(queue=queue.name)
        except (PreconditionFailed, ResourceLocked) as error:
            yield RABBITMQ_QUEUE_DIFFERS.at(queue=queue.name, why=describe(error))
        except AccessRefused as error:
            yield RABBITMQ_RIGHTS_MISSING.at(
                place=place, action=f"use {queue.name}", why=describe(error), pattern=queue.name
            )
