"""Settings of the worker in groups, one file for each concern; read once from ``LABELYARD_*``.

The groups are a package of their own and not files beside their owners: the owners of ``vision/``
and ``intake/`` receive the whole ``WorkerSettings``, so groups in there would make the two
folders import each other.
"""

from labelyard.settings import ClientSettings, ConnectionSettings, refuse_unknown_variables
from labelyard_worker.settings.broker import BrokerSettings, ReconcilerSettings
from labelyard_worker.settings.caches import CacheSettings
from labelyard_worker.settings.delivery import DeliverySettings
from labelyard_worker.settings.events import EventSettings
from labelyard_worker.settings.intake import IntakeSettings, SourceSettings
from labelyard_worker.settings.jobs import JobSettings
from labelyard_worker.settings.measuring import REPLACED_VARIABLES, MeasuringSettings
from labelyard_worker.settings.model import BatchSettings, ModelSettings
from labelyard_worker.settings.operations import OperationsSettings
from labelyard_worker.settings.runs import RunSettings


class WorkerSettings(
    ModelSettings,
    BatchSettings,
    CacheSettings,
    IntakeSettings,
    SourceSettings,
    JobSettings,
    RunSettings,
    BrokerSettings,
    ReconcilerSettings,
    DeliverySettings,
    EventSettings,
    OperationsSettings,
    MeasuringSettings,
    ConnectionSettings,
):
    """All settings of a worker."""


def read_settings() -> WorkerSettings:
    """Read the environment, and refuse a misspelt variable.

    Raises:
        ServiceConfigError: A value or a name is wrong.
    """
    refuse_unknown_variables([WorkerSettings, ClientSettings], replaced=REPLACED_VARIABLES)
    return WorkerSettings.read()
