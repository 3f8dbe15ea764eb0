"""Rows of the dashboard on the workers: latencies, model, intake and slots."""

from typing import Final

from deploy.grafana.panels import (
    WORKER,
    Panel,
    Query,
    fleet,
    mean,
    quantile,
    quantiles,
    rate,
    share,
)

STAGES: Final = "labelyard_stage_duration_seconds"
LATENCY: Final = (
    Panel(
        title="Time in the queue, by priority",
        description="Seconds from submit to the start of an attempt; it grows when workers are too "
        "few.",
        unit="s",
        queries=quantiles(STAGES, "priority", where=f'{WORKER}, stage="queued"'),
    ),
    Panel(
        title="Fetch and decode",
        description="Seconds of an image in the intake; a slow fetch is the storage, a slow decode "
        "are large pictures or too few cores.",
        unit="s",
        queries=quantiles(STAGES, "stage", where=f'{WORKER}, stage=~"fetch|decode"'),
    ),
    Panel(
        title="Batch wait, model and score",
        description="Seconds of an image from its pixels to its labels; a long batch wait means "
        "that the model is the bottleneck.",
        unit="s",
        queries=quantiles(STAGES, "stage", where=f'{WORKER}, stage=~"batch_wait|model|score"'),
    ),
    Panel(
        title="Event-loop lag",
        description="Seconds that the loop which receives messages was late; above 1 s claims and "
        "acknowledgements suffer.",
        unit="s",
        queries=quantiles("labelyard_event_loop_lag_seconds"),
    ),
)
MODEL: Final = (
    Panel(
        title="Batch size",
        description="Mean and 95th percentile of the items of one forward pass, by tower.",
        unit="short",
        queries=(
            Query(mean("labelyard_batch_size", "tower"), "{{tower}} mean"),
            Query(quantile(0.95, "labelyard_batch_size", "tower"), "{{tower}} p95"),
        ),
    ),
    Panel(
        title="Batch fill",
        description="Items of a forward pass divided by the most that it may have: full batches "
        "are a worker with enough work.",
        unit="percentunit",
        queries=(Query(mean("labelyard_batch_fill_ratio", "tower"), "{{tower}}"),),
    ),
    Panel(
        title="Forward passes at once",
        description="Forward passes that run at the same time, on average over all workers: near "
        "the number of their streams the model is the bottleneck.",
        unit="short",
        queries=(
            Query(
                f"sum by (tower) (rate(labelyard_batch_duration_seconds_sum{{{WORKER}}}"
                "[$__rate_interval]))",
                "{{tower}}",
            ),
        ),
    ),
    Panel(
        title="Forward pass",
        description="Seconds of one forward pass, by tower.",
        unit="s",
        queries=quantiles("labelyard_batch_duration_seconds", "tower"),
    ),
    Panel(
        title="Device memory",
        description="Memory of the GPU that the worker holds and that tensors use, beside its "
        "size; no data on a CPU.",
        unit="bytes",
        queries=tuple(
            Query(
                f"sum by (instance, device) (labelyard_device_memory_{part}_bytes{{{WORKER}}})",
                f"{{{{instance}}}} {{{{device}}}} {part}",
            )
            for part in ("allocated", "reserved", "total")
        ),
        may_be_empty=True,
    ),
    Panel(
        title="Prompts encoded, and passes out of memory",
        description="Prompts that the text tower encoded (a label set costs them once), and "
        "forward passes that ran out of device memory and were halved.",
        unit="1/s",
        queries=(
            Query(f"sum({rate('labelyard_prompts_encoded_total', 'job')})", "prompts"),
            Query(f"sum({rate('labelyard_batches_out_of_memory_total', 'job')})", "out of memory"),
        ),
    ),
)
INTAKE: Final = (
    Panel(
        title="Pixels in flight",
        description="Memory of decoded images, beside its limit; at the limit decoding waits for "
        "the model.",
        unit="bytes",
        queries=(
            Query(
                f"sum by (instance) (labelyard_pixels_in_flight_bytes{{{WORKER}}})",
                "{{instance}}",
            ),
            Query(
                f"max(labelyard_pixels_in_flight_limit_bytes{{{WORKER}}})", "limit of one worker"
            ),
        ),
    ),
    Panel(
        title="Images in a worker",
        description="Images in the intake, and decoded images that wait for a forward pass: the "
        "longer one is before the bottleneck.",
        unit="short",
        queries=(
            Query(f"sum(labelyard_intake_pending_images{{{WORKER}}})", "intake"),
            Query(f"sum(labelyard_batch_queue_images{{{WORKER}}})", "before the model"),
        ),
    ),
    Panel(
        title="Cache hit rates",
        description="Part of the look-ups that found an embedding in memory or in Redis.",
        unit="percentunit",
        queries=(
            Query(
                share("labelyard_image_cache_lookups_total", of="memory|shared|content"), "images"
            ),
            Query(share("labelyard_text_cache_lookups_total", of="memory|shared"), "prompts"),
            Query(share("labelyard_label_set_lookups_total", of="hit"), "label sets"),
        ),
    ),
    Panel(
        title="Replaced children",
        description="Fetchers and decoders that were replaced in the last 5 minutes: each failed "
        "its own image alone.",
        unit="short",
        queries=(
            Query(
                "sum by (child, reason) "
                f"(increase(labelyard_intake_children_replaced_total{{{WORKER}}}[5m]))",
                "{{child}} {{reason}}",
            ),
        ),
        may_be_empty=True,
    ),
    Panel(
        title="Circuit breakers",
        description="Buckets and hosts that are not called freely because they failed, of sources "
        "and of deliveries.",
        unit="short",
        queries=(
            Query(f"sum by (kind, state) (labelyard_circuits{{{WORKER}}})", "{{kind}} {{state}}"),
        ),
    ),
)
WORKERS: Final = (
    Panel(
        title="Workers",
        description="Workers that are live in the ledger, that Prometheus reaches, that lead (one "
        "of a namespace), and that drain.",
        unit="short",
        queries=(
            Query(fleet("labelyard_fleet_workers"), "live"),
            Query(f"count(labelyard_job_slots{{{WORKER}}})", "scraped"),
            Query(f"sum(labelyard_leader{{{WORKER}}})", "leaders"),
            Query(f"sum(labelyard_draining{{{WORKER}}})", "draining"),
        ),
    ),
    Panel(
        title="Job slots in use",
        description="Part of each worker's slots that run a job; leaked slots never come back.",
        unit="percentunit",
        queries=(
            Query(
                f"sum by (instance) (labelyard_job_slots_busy{{{WORKER}}}) / "
                f"sum by (instance) (labelyard_job_slots{{{WORKER}}})",
                "{{instance}}",
            ),
            Query(
                f"sum(labelyard_job_slots_leaked{{{WORKER}}}) / sum(labelyard_job_slots{{{WORKER}}})",
                "leaked",
            ),
        ),
    ),
    Panel(
        title="Longest forward pass now",
        description="Seconds that a forward pass has been running; the watchdog ends a worker "
        "whose pass hangs.",
        unit="s",
        queries=(
            Query(
                f"max by (instance) (labelyard_forward_pass_running_seconds{{{WORKER}}})",
                "{{instance}}",
            ),
        ),
    ),
    Panel(
        title="Open jobs",
        description="Jobs that are not final.",
        unit="short",
        queries=(Query(fleet("labelyard_fleet_open_jobs"), "jobs"),),
    ),
    Panel(
        title="CPU of the worker process",
        description="Cores that each worker process uses, its intake children apart; near the "
        "number of its cores it is the bottleneck.",
        unit="short",
        queries=(
            Query(
                f"sum by (instance) (rate(process_cpu_seconds_total{{{WORKER}}}[$__rate_interval]))",
                "{{instance}}",
            ),
        ),
    ),
    Panel(
        title="Memory of the worker process",
        description="Resident memory of each worker process, its intake children apart; it settles "
        "within minutes.",
        unit="bytes",
        queries=(
            Query(f"sum by (instance) (process_resident_memory_bytes{{{WORKER}}})", "{{instance}}"),
        ),
    ),
)
