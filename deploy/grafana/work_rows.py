"""Rows of the dashboard on the work: throughput, backlog, deliveries and what went wrong."""

from typing import Final

from deploy.grafana.panels import (
    FLEET,
    TENANT,
    WORKER,
    Panel,
    Query,
    backlog,
    fleet,
    quantiles,
    rate,
)

NOW: Final = (
    Panel(
        title="Live workers",
        kind="stat",
        description="Workers whose presence key in the ledger is fresh; 0 means that no job runs.",
        unit="short",
        queries=(Query(fleet("labelyard_fleet_workers"), "workers"),),
    ),
    Panel(
        title="Backlog",
        kind="stat",
        description="Images of jobs that are not final: queued, unacknowledged and running.",
        unit="short",
        queries=(Query(backlog(""), "images"),),
    ),
    Panel(
        title="Oldest open job",
        kind="stat",
        description="Age of the oldest job that is not final, over all queues.",
        unit="s",
        queries=(
            Query(f'max(labelyard_fleet_oldest_job_seconds{{{FLEET}, queue=~"$queue"}})', "age"),
        ),
        may_be_empty=True,
    ),
    Panel(
        title="Throughput",
        kind="stat",
        description="Images of all jobs that became final, per second.",
        unit="images/s",
        queries=(Query(f"sum({rate('labelyard_images_total', 'job', where=TENANT)})", "images/s"),),
    ),
    Panel(
        title="Dead letters",
        kind="stat",
        description="Jobs that killed their workers and are kept for an operator.",
        unit="short",
        queries=(Query(fleet("labelyard_fleet_dead_letters"), "dead letters"),),
    ),
    Panel(
        title="Set-aside messages",
        kind="stat",
        description="Messages that no worker can run and that are kept for an operator.",
        unit="short",
        queries=(Query(fleet("labelyard_fleet_set_aside_messages"), "messages"),),
    ),
)
THROUGHPUT: Final = (
    Panel(
        title="Images by outcome",
        description="Images of jobs that became final; anything but succeeded is an error's code.",
        unit="images/s",
        queries=(Query(rate("labelyard_images_total", "outcome", where=TENANT), "{{outcome}}"),),
        is_stacked=True,
    ),
    Panel(
        title="Jobs by outcome",
        description="Jobs that workers made final; partial means that some of its images failed.",
        unit="jobs/s",
        queries=(Query(rate("labelyard_jobs_total", "outcome", where=TENANT), "{{outcome}}"),),
        is_stacked=True,
    ),
    Panel(
        title="Tenants' shares",
        description="Part of all finished images that each tenant got; with fair shares a flood of "
        "one tenant leaves the others theirs.",
        unit="percentunit",
        queries=(
            Query(
                f"{rate('labelyard_images_total', 'tenant', where=TENANT)} / scalar("
                f"sum({rate('labelyard_images_total', 'job', where=TENANT)}))",
                "{{tenant}}",
            ),
        ),
        is_stacked=True,
    ),
    Panel(
        title="Images that failed, by code",
        description="Failed images by the code of their error; docs/errors.md has who must act.",
        unit="images/s",
        queries=(
            Query(
                rate("labelyard_images_total", "outcome", where=f'{TENANT}, outcome!="succeeded"'),
                "{{outcome}}",
            ),
        ),
        is_stacked=True,
        may_be_empty=True,
    ),
    Panel(
        title="Attempts that did not finish, by code",
        description="Attempts that a job's error ended in another verdict than a result: a retry, "
        "a wait for its storage, a death of its worker.",
        unit="1/s",
        queries=(
            Query(
                rate(
                    "labelyard_attempts_total",
                    "verdict, code",
                    where=f'{WORKER}, verdict!~"finish|drop"',
                ),
                "{{verdict}} {{code}}",
            ),
        ),
        may_be_empty=True,
    ),
)
BACKLOG: Final = (
    Panel(
        title="Backlog by tenant",
        description="Images of each tenant's jobs that are not final; this is the figure to scale "
        "on.",
        unit="short",
        queries=(Query(backlog("tenant"), "{{tenant}}"),),
        is_stacked=True,
    ),
    Panel(
        title="Backlog by queue",
        description="The same by queue: a long bulk queue may be meant, a long interactive one is "
        "not.",
        unit="short",
        queries=(Query(backlog("queue"), "{{queue}}"),),
        is_stacked=True,
    ),
    Panel(
        title="Oldest open job by queue",
        description="Age of the oldest job that is not final; a line that climbs one second a "
        "second is a job that nobody finishes.",
        unit="s",
        queries=(
            Query(
                f'max by (queue) (labelyard_fleet_oldest_job_seconds{{{FLEET}, queue=~"$queue"}})',
                "{{queue}}",
            ),
        ),
        may_be_empty=True,
    ),
    Panel(
        title="Messages in the broker",
        description="Messages that no worker holds, by queue; a busy fleet keeps it near 0, so it "
        "is not the amount of work.",
        unit="short",
        queries=(
            Query(
                fleet("labelyard_fleet_queue_messages", "queue", where=f'{FLEET}, queue=~"$queue"'),
                "{{queue}}",
            ),
        ),
    ),
)
RECOVERY: Final = (
    Panel(
        title="Delivery attempts",
        description="Attempts to write an object or to call a webhook; failed ones are tried "
        "again.",
        unit="1/s",
        queries=(
            Query(
                rate("labelyard_delivery_attempts_total", "kind, outcome"), "{{kind}} {{outcome}}"
            ),
        ),
    ),
    Panel(
        title="Pending deliveries",
        description="Final jobs whose result is not delivered yet, a line that grows while a "
        "receiver is away; and dead letters, which were given up or refused.",
        unit="short",
        queries=(
            Query(fleet("labelyard_fleet_pending_deliveries"), "pending"),
            Query(fleet("labelyard_fleet_dead_deliveries"), "dead"),
        ),
    ),
    Panel(
        title="Time of a delivery",
        description="Seconds of one call to a bucket or a webhook.",
        unit="s",
        queries=quantiles("labelyard_delivery_duration_seconds", "kind"),
    ),
    Panel(
        title="Waiting events",
        description="Events that a group of consumers has not read yet, a line that grows while "
        "its consumers are away; and groups that have lost events.",
        unit="short",
        queries=(
            Query(fleet("labelyard_fleet_waiting_events", "group"), "{{group}}"),
            Query(fleet("labelyard_fleet_event_gaps"), "groups with a gap"),
        ),
    ),
    Panel(
        title="Republished jobs",
        description="Jobs whose message was published again in the last 5 minutes: due retries, "
        "and lost messages, which a healthy broker has none of.",
        unit="short",
        queries=(
            Query(
                f"sum by (reason) (increase(labelyard_jobs_republished_total{{{FLEET}}}[5m]))",
                "{{reason}}",
            ),
        ),
        may_be_empty=True,
    ),
    Panel(
        title="Dead letters and set-aside messages",
        description="What is kept for an operator until it is replayed or purged.",
        unit="short",
        queries=(
            Query(fleet("labelyard_fleet_dead_letters"), "dead letters"),
            Query(fleet("labelyard_fleet_set_aside_messages"), "set-aside messages"),
        ),
    ),
    Panel(
        title="New dead letters, set-aside messages and expired jobs",
        description="Events of the last 5 minutes: jobs that became dead letters, messages that "
        "were set aside by reason, and jobs that expired in their queue.",
        unit="short",
        queries=(
            Query(
                f"sum(increase(labelyard_dead_letters_total{{{WORKER}}}[5m]))",
                "dead letters",
            ),
            Query(
                f"sum by (reason) (increase(labelyard_messages_set_aside_total{{{WORKER}}}[5m]))",
                "set aside: {{reason}}",
            ),
            Query(
                f"sum(increase(labelyard_queued_jobs_expired_total{{{FLEET}}}[5m]))",
                "expired",
            ),
        ),
    ),
)
