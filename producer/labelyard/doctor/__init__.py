"""Doctor: examine an installation, and report what endangers jobs with the remedy of each fault.

Nothing that it writes stays, and no command that it sends holds up a server.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Final

import redis

from labelyard.doctor import (
    clocks,
    examination,
    fleet,
    limits,
    permissions,
    rabbitmq,
    redis_kinds,
    redis_settings,
    servers,
    storage_kinds,
)
from labelyard.doctor import settings as variables
from labelyard.doctor.examination import Examination, Section, guarded, run_sections, secrets_in
from labelyard.doctor.report import DoctorReport, Finding, FindingKind, Severity
from labelyard.doctor.settings import DoctorSettings
from labelyard.doctor.storage import examine_storage
from labelyard.errors import ServiceConfigError
from labelyard.queues import is_amqp

__all__ = ["DoctorReport", "DoctorSettings", "Finding", "FindingKind", "Severity", "examine"]

TIME_LIMIT_S: Final = 30.0
#: All kinds of findings of the producer's side, for docs/doctor.md.
KINDS: Final[tuple[FindingKind, ...]] = (
    *servers.KINDS,
    *redis_kinds.KINDS,
    *permissions.KINDS,
    *rabbitmq.KINDS,
    *storage_kinds.KINDS,
    *clocks.KINDS,
    *fleet.KINDS,
    *variables.KINDS,
    *limits.KINDS,
    *examination.KINDS,
)


def examine(
    settings: DoctorSettings | None = None,
    *,
    time_limit_s: float = TIME_LIMIT_S,
    environ: Mapping[str, str] = os.environ,
    clock: Callable[[], float] = time.time,
) -> DoctorReport:
    """Examine an installation from a producer's machine.

    Args:
        settings: Read from ``LABELYARD_*`` if not given.
        time_limit_s: Seconds after which the report is made of what was found so far.
        environ: Variables that are searched for misspelt ones.
        clock: This machine's clock.

    Returns:
        All findings, serious ones first; a check that fails is a finding as well.
    """
    try:
        settings = settings or DoctorSettings.read()
    except ServiceConfigError as error:
        return report_refusal(error, environ, is_worker=False)
    exam = Examination(settings, environ, clock=clock)
    return run_sections(
        server_sections(exam),
        time_limit_s=time_limit_s,
        secrets=secrets_in(settings, environ),
    )


def server_sections(exam: Examination) -> dict[str, Section]:
    """List the sections that both sides have, by the subject of "… could not be checked"."""
    sections: dict[str, Section] = {
        "Redis": lambda: examine_redis(exam),
        "Object storage": lambda: examine_storage(exam),
        "The settings": lambda: examine_settings(exam),
    }
    if is_amqp(exam.settings.broker_url):
        sections["RabbitMQ"] = lambda: rabbitmq.examine_rabbitmq(exam)
    return sections


def examine_settings(exam: Examination) -> Iterator[Finding]:
    """Find misspelt variables, and settings that contradict each other."""
    yield from variables.check_variables(exam.environ, is_worker=exam.is_worker)
    yield from limits.check_limits(exam.settings)


def examine_redis(exam: Examination) -> Iterator[Finding]:
    """Reach each Redis, and check the settings, rights and clock of those that answer."""
    with ExitStack() as stack:
        reached = {}
        for role in servers.redis_roles(exam.settings):
            client = stack.enter_context(closing(servers.open_client(role)))
            answers = list(servers.check_answers(role, client))
            yield from answers
            if all(one.code in ("redis_reached", "redis_slow") for one in answers):
                reached[role] = client
        for instance in redis_settings.read_instances(reached):
            check = redis_settings.check_instance
            yield from guarded(instance.name, check, instance, exam.settings)
        for role, client in reached.items():
            yield from guarded(f"Rights on the {role.name}", _check_role, role, client, exam)


def _check_role(
    role: servers.RedisRole, client: "redis.Redis", exam: Examination
) -> Iterator[Finding]:
    checks: dict[str, Callable[..., Iterable[Finding]]] = {
        "ledger": permissions.check_ledger_rights,
        "broker": permissions.check_broker_rights,
    }
    if role.name in checks:
        yield from checks[role.name](role, client, exam)
    if role.name == "ledger":
        yield from guarded("The ledger's clock", clocks.check_ledger_clock, client, exam)
        yield from guarded("The fleet of workers", fleet.check_fleet, client, exam)


def report_refusal(
    error: ServiceConfigError, environ: Mapping[str, str], *, is_worker: bool
) -> DoctorReport:
    """Report a setting that is refused, and misspelt variables: nothing else can be examined."""
    refusal = variables.SETTING_REFUSED.at(why=str(error).removeprefix("service_config: "))
    misspelt = variables.check_variables(environ, is_worker=is_worker)
    return DoctorReport.of([refusal, *misspelt], seconds=0.0, secrets=())
