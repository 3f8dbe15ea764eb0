"""Worker's doctor: the producer's examination, and that of model, machine and settings."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from labelyard.doctor import (
    DoctorReport,
    DoctorSettings,
    Finding,
    FindingKind,
    report_refusal,
    server_sections,
)
from labelyard.doctor.examination import Examination, guarded, run_sections, secrets_in
from labelyard.doctor.settings import SETTING_REFUSED
from labelyard.errors import ServiceConfigError
from labelyard_worker.jobs.delivery.permissions import ResultPlaces, WebhookHosts
from labelyard_worker.jobs.delivery.signature import webhook_keys
from labelyard_worker.operations.doctor import contradictions, kinds
from labelyard_worker.operations.doctor.contradictions import check_worker_settings
from labelyard_worker.operations.doctor.machine import examine_machine
from labelyard_worker.settings import WorkerSettings

__all__ = ["KINDS", "TIME_LIMIT_S", "examine_worker"]

TIME_LIMIT_S: Final = 60.0
#: Kinds of findings that only a worker's machine has, for docs/doctor.md.
KINDS: Final[tuple[FindingKind, ...]] = (*kinds.KINDS, *contradictions.KINDS)


def examine_worker(
    settings: WorkerSettings | None = None,
    *,
    time_limit_s: float = TIME_LIMIT_S,
    environ: Mapping[str, str] = os.environ,
    clock: Callable[[], float] = time.time,
) -> DoctorReport:
    """Examine an installation from a worker's machine; see ``labelyard.doctor.examine``."""
    try:
        settings = settings or WorkerSettings.read()
        shared = doctor_settings_of(settings)
    except ServiceConfigError as error:
        return report_refusal(error, environ, is_worker=True)
    exam = Examination(shared, environ, is_worker=True, clock=clock)
    sections = {
        **server_sections(exam),
        "The worker's settings": lambda: examine_worker_settings(settings, environ),
        "The machine": lambda: examine_machine(settings),
        "The model": lambda: examine_model_of(settings),
    }
    return run_sections(sections, time_limit_s=time_limit_s, secrets=secrets_in(shared, environ))


def doctor_settings_of(settings: WorkerSettings) -> DoctorSettings:
    """Take the settings that concern the servers from a worker's."""
    names = set(DoctorSettings.model_fields) & set(type(settings).model_fields)
    return DoctorSettings(**{name: getattr(settings, name) for name in names})


def examine_worker_settings(
    settings: WorkerSettings, environ: Mapping[str, str]
) -> Iterator[Finding]:
    """Parse the settings that a worker parses at its start, and find contradictions."""
    starts: dict[str, Callable[[], object]] = {
        "result_buckets": lambda: ResultPlaces.parse(
            settings.result_buckets, readable=settings.allowed_buckets
        ),
        "webhook_hosts": lambda: WebhookHosts.parse(settings.webhook_hosts),
        "webhook_secret": lambda: webhook_keys(settings.webhook_secret),
    }
    for parse in starts.values():
        try:
            parse()
        except ServiceConfigError as error:
            yield SETTING_REFUSED.at(why=str(error).removeprefix("service_config: "))
    yield from guarded("Limits", check_worker_settings, settings, environ)


def examine_model_of(settings: WorkerSettings) -> Iterator[Finding]:
    """Examine the model; torch and transformers are loaded here and not before."""
    from labelyard_worker.operations.doctor.model import examine_model

    yield from examine_model(settings)
