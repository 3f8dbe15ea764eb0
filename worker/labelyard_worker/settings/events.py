"""Settings of the event stream."""

from pydantic import BaseModel, Field

from labelyard.ledger.limits import EVENT_RESULT_MAX_BYTES, EVENTS_MAX_AGE_S, EVENTS_MAX_ENTRIES
from labelyard.settings import MAX_TTL_S


class EventSettings(BaseModel):
    """Worker settings of the event stream; those of the leading worker hold for all."""

    #: Events that are kept, about; older ones are dropped, and a group of consumers that had not
    #: handled them gets a gap. 0 writes no events. An event takes about 0.2 kB of the ledger's
    #: Redis, and its result.
    events_max_entries: int = Field(default=EVENTS_MAX_ENTRIES, ge=0, le=100_000_000)
    #: Seconds for which an event is kept at most, its result included.
    events_max_age_s: int = Field(default=EVENTS_MAX_AGE_S, ge=60, le=MAX_TTL_S)
    #: Longest result in bytes that is part of its event; a longer one is read by its job's id. One
    #: picture with five labels has about 700.
    event_result_max_bytes: int = Field(default=EVENT_RESULT_MAX_BYTES, ge=0, le=65_536)
