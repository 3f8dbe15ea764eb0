"""Settings of the delivery of results."""

from pydantic import BaseModel, Field

from labelyard.ledger.limits import DELIVER_FOR_S, FIRST_PAUSE_S, LONGEST_PAUSE_S
from labelyard.settings import DAY_S
from labelyard_worker.settings.values import Names


class DeliverySettings(BaseModel):
    """Worker settings of deliveries: the objects and webhooks that results may go to, and retries."""

    #: Buckets that ``deliver.object_uri`` may write to: ``bucket`` or ``bucket/prefix/``, in which
    #: ``{tenant}`` stands for the job's tenant; empty refuses all. A bucket that allowed_buckets
    #: lists needs a prefix, or a result could take a picture's place. The first one also gets the
    #: maps of explanations.
    result_buckets: Names = ()
    #: Seconds after its job finished for which a failed delivery is tried again. Then it is a dead
    #: letter: its record is kept for open_ttl_s, to be replayed with ``labelyard webhooks``.
    deliver_for_s: float = Field(default=DELIVER_FOR_S, gt=0, le=30 * DAY_S)
    #: Seconds before the second attempt at a delivery. Each further pause is twice as long, and 25 %
    #: shorter or longer at random.
    delivery_first_pause_s: float = Field(default=FIRST_PAUSE_S, gt=0, le=3600)
    #: Longest pause between two attempts, the receiver's ``Retry-After`` included. A longer one costs
    #: fewer calls, and delays what a receiver gets once it is back.
    delivery_longest_pause_s: float = Field(default=LONGEST_PAUSE_S, gt=0, le=DAY_S)
    #: Seconds for which a bucket or receiver is left alone after five failures in a row; each probe
    #: that fails doubles it, up to twelve times as long.
    delivery_breaker_pause_s: float = Field(default=10.0, gt=0, le=3600)
    # Both timeouts are below the lease of a delivery, see jobs/delivery/pool.py.
    #: Seconds that writing one object may take, 30 at most.
    object_timeout_s: float = Field(default=30.0, gt=0, le=30)
    #: Secret that signs webhooks, ``whsec_…``; without it none is sent. Two with a comma between
    #: them both sign, while receivers change from one to the other.
    webhook_secret: str | None = None
    #: Receivers that webhooks may go to, ``host`` or ``host:port`` over https,
    #: ``http://host:port`` without TLS; empty refuses all. ``localhost`` and ``127.0.0.1`` alone
    #: permit every port and http, for development.
    webhook_hosts: Names = ()
    #: Seconds that one whole webhook call may take, 30 at most.
    webhook_timeout_s: float = Field(default=5.0, gt=0, le=30)
