"""Settings of probes, metrics and logs."""

from typing import Literal

from pydantic import BaseModel, Field, PositiveFloat


class OperationsSettings(BaseModel):
    """Worker settings of operation: probes, metrics and logs."""

    #: Port of ``/live``, ``/ready`` and ``/metrics`` on 127.0.0.1; 0 picks a free one, -1 turns it off.
    health_port: int = Field(default=9464, ge=-1, le=65535)
    #: Address that the port is bound to.
    health_host: str = "127.0.0.1"
    #: Number of tenants that metrics name; further ones are counted as ``other``. Each costs a
    #: worker some 20 time series.
    metrics_max_tenants: int = Field(default=100, ge=1, le=10_000)
    #: Seconds without a finished job, while jobs wait, until not live.
    stall_s: PositiveFloat = 300.0
    #: ``debug``, ``info``, ``warning`` or ``error``.
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    #: ``text`` or ``json``.
    log_format: Literal["text", "json"] = "text"
