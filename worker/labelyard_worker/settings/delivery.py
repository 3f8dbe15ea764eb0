"""Settings of the delivery of results."""

from pydantic import BaseModel, Field

from labelyard_worker.settings.values import Names


class DeliverySettings(BaseModel):
    """Worker settings of deliveries: the objects and webhooks that results may go to."""

    #: Buckets that ``deliver.object_uri`` may write to: ``bucket`` or ``bucket/prefix/``, in which
    #: ``{tenant}`` stands for the job's tenant; empty refuses all. A bucket that allowed_buckets
    #: lists needs a prefix, or a result could take a picture's place.
    result_buckets: Names = ()
    # Both timeouts are below the lease of a delivery, see jobs/delivery/pool.py.
    #: Seconds that writing one object may take, 30 at most.
    object_timeout_s: float = Field(default=30.0, gt=0, le=30)
    #: Secret that signs webhooks, ``whsec_…``; without it none is sent.
    webhook_secret: str | None = None
    #: Receivers that webhooks may go to, ``host`` or ``host:port`` over https,
    #: ``http://host:port`` without TLS; empty refuses all. ``localhost`` and ``127.0.0.1`` alone
    #: permit every port and http, for development.
    webhook_hosts: Names = ()
    #: Seconds that one whole webhook call may take, 30 at most.
    webhook_timeout_s: float = Field(default=5.0, gt=0, le=30)
