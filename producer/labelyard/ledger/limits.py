"""Times and numbers that the ledger's scripts and their callers share."""

from typing import Final

from labelyard.queues import Queue

#: Longest life in seconds of a worker's presence key after its worker: a death is known by then.
PRESENCE_S: Final = 10

#: Seconds for which a worker that died stays in the index of workers, with its details.
WORKER_DETAILS_TTL_S: Final = 3_600

#: Deaths beyond dead_after that bury a suspect which never had its worker to itself.
UNCONFIRMED_DEATHS: Final = 2

#: Times that a job which came back alive is cleared of its workers' deaths.
FORGIVEN_TIMES: Final = 5

#: Life in seconds of the key that names a worker's suspect: longer than a job takes to come
#: again after its worker's death.
SUSPECT_TTL_S: Final = 86_400

#: Seconds that a worker holds a finished job's deliveries without renewing its lease.
DELIVERY_LEASE_S: Final = 60

#: Default of the seconds after its job finished for which a failed delivery is tried again; then
#: it is a dead letter.
DELIVER_FOR_S: Final = 86_400

#: Default of the seconds before the second attempt at a delivery; each further pause is twice as long.
FIRST_PAUSE_S: Final = 2.0

#: Default of the longest pause in seconds between two attempts, ``Retry-After`` of the receiver
#: included.
LONGEST_PAUSE_S: Final = 3_600

#: Seconds that a record outlives its finish at least while deliveries are pending: as long as they
#: are tried, and two pauses.
PENDING_DELIVERY_TTL_S: Final = DELIVER_FOR_S + 2 * LONGEST_PAUSE_S

#: Jobs that are kept as dead deliveries: 43 MB of Redis with small results. The oldest are dropped.
MAX_DEAD_DELIVERIES: Final = 10_000

#: Entries of an event stream, about: Redis trims whole blocks.
STREAM_MAX_ENTRIES: Final = 100_000

#: Longest result that an event holds; that of a longer one is read from the record.
STREAM_RESULT_MAX_BYTES: Final = 65_536

#: Events that the namespace's event stream keeps, about, unless a worker's settings say otherwise.
EVENTS_MAX_ENTRIES: Final = 100_000

#: Longest result in bytes that an event of that stream holds, unless a worker's settings say otherwise.
EVENT_RESULT_MAX_BYTES: Final = 2_048

#: Seconds for which an event is kept at most, unless a worker's settings say otherwise.
EVENTS_MAX_AGE_S: Final = 7 * 86_400

#: Numbers of erased events that are remembered; beyond them an erased event counts as lost.
ERASED_EVENTS_MAX: Final = 10_000

#: Groups of consumers that a namespace can have.
MAX_EVENT_GROUPS: Final = 100

#: Queue of a suspect's next message, and that of a suspect which is replayed as a dead letter.
QUARANTINE_QUEUE: Final = Queue.QUARANTINE
BULK_QUEUE: Final = Queue.BULK

#: Entries of the index of jobs by time: about 25 MB of Redis. The oldest are dropped.
JOB_INDEX_MAX_ENTRIES: Final = 200_000

#: Entries of the index of runs by time. The oldest are dropped.
RUN_INDEX_MAX_ENTRIES: Final = 10_000

#: Seconds of a tenant's rate that may be used at once: the burst of images_per_s and prompts_per_s.
BURST_S: Final = 1.0

#: Seconds for which adopted messages may use up a tenant's rates in advance: they are charged, but
#: never refused.
MAX_ADOPTED_DEBT_S: Final = 60.0

#: Pause in seconds after which a tenant with too many open images should submit again.
OPEN_IMAGES_PAUSE_S: Final = 1.0

#: Queue of urgent jobs; with the two above, all that hold jobs.
INTERACTIVE_QUEUE: Final = Queue.INTERACTIVE

#: Queue of plans and ends of runs.
CONTROL_QUEUE: Final = Queue.CONTROL

#: Aliases of label sets in a namespace.
MAX_ALIASES: Final = 1000

#: Moves of an alias that are kept.
MAX_ALIAS_MOVES: Final = 1000

#: Fields of one hash of counts: an hour of a version, or a canary.
MAX_COUNTS: Final = 500

#: Life of counts in seconds, after the last addition.
COUNTS_TTL_S: Final = 35 * 86_400
