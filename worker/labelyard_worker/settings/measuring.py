"""The switch that only measurements use, and the five switches that it replaced."""

from typing import Final

from pydantic import BaseModel

#: Variables of earlier versions, each of which turned off one guard.
REPLACED_VARIABLES: Final = {
    f"LABELYARD_{name}": "LABELYARD_STOCK_CELERY"
    for name in ("SAFE_POOL", "HEARTBEAT", "SINGLE_FLIGHT", "RECONCILER", "WATCHDOG")
}


class MeasuringSettings(BaseModel):
    """Worker settings for measuring; never set them in production."""

    #: Run Celery's own thread pool without our guards: the visibility heartbeat, single flight,
    #: the reconciler of lost messages and the watchdog. Jobs are then lost, run twice or hang
    #: for ever; the benchmark measures what the guards cost.
    stock_celery: bool = False
