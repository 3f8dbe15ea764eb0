"""All kinds of faults, with their number in a run, and the schedule."""

import random
from typing import Final

from tests.chaos import job_faults, server_faults, slow_faults, worker_faults
from tests.chaos.context import Fault
from tests.chaos.server_faults import take_away
from tests.support.apps import orders

TWENTY_MINUTES_S: Final = 1200.0
# The most that fit into a run while it still heals between them.
LEAST_GAP_S: Final = 2.5

FAULTS: Final = (
    Fault("sigkill_busy_worker", worker_faults.sigkill_busy_worker, quota=48, least=2),
    Fault("sigterm_under_load", worker_faults.sigterm_under_load, quota=46, least=2),
    Fault("sigterm_then_sigkill", worker_faults.sigterm_then_sigkill, quota=10, least=1),
    Fault("sigstop_worker", worker_faults.sigstop_worker, quota=8),
    Fault("clock_jump", worker_faults.jump_clock, quota=8),
    Fault("broker_killed", server_faults.kill_broker, quota=18, least=1),
    Fault("broker_emptied", server_faults.empty_broker, quota=6, least=1),
    Fault("broker_full", server_faults.fill_broker, quota=5),
    Fault("broker_disk_full", server_faults.fill_disk, quota=4),
    Fault("ledger_killed", server_faults.kill_ledger, quota=6),
    Fault("ledger_away", take_away("ledger", seconds=4), quota=12, least=1),
    Fault("ledger_away_long", take_away("ledger", seconds=60), quota=1),
    Fault("storage_away", take_away("storage", seconds=4), quota=12, least=1),
    Fault("storage_away_long", take_away("storage", seconds=60), quota=1),
    Fault("storage_drips", slow_faults.drip_storage, quota=6, least=1),
    Fault("webhooks_drip", slow_faults.drip_webhooks, quota=6, least=1),
    Fault("replies_lost", slow_faults.lose_replies, quota=12, least=1),
    Fault("half_open", server_faults.half_open, quota=12, least=1),
    Fault("clients_killed", server_faults.kill_clients, quota=8),
    Fault("poison_kill", job_faults.poison(orders.KILLS_PROCESS), quota=2),
    Fault("poison_hang", job_faults.poison(orders.HANGS), quota=1),
    Fault("poison_memory_error", job_faults.poison(orders.RAISES_MEMORY_ERROR), quota=6),
    Fault("poison_system_exit", job_faults.poison(orders.RAISES_SYSTEM_EXIT), quota=6),
    Fault("malformed_envelopes", job_faults.push_malformed, quota=12, least=1),
    Fault("model_hangs", job_faults.order(orders.HANG_MODEL), quota=2),
    Fault("device_lost", job_faults.order(orders.LOSE_DEVICE), quota=4),
    Fault("out_of_memory", job_faults.order(orders.RUN_OUT_OF_MEMORY), quota=10),
)


def draw_schedule(rng: random.Random, *, seconds: float) -> list[tuple[float, Fault]]:
    """Draw a schedule of faults: each kind by its share, in random order.

    Returns:
        Pairs of the second from the start and the fault, in order of time.
    """
    share = seconds / TWENTY_MINUTES_S
    drawn: list[Fault] = []
    for fault in FAULTS:
        wanted = fault.quota * share
        count = int(wanted) + (rng.random() < wanted % 1)
        drawn += [fault] * max(fault.least, count)
    rng.shuffle(drawn)
    most = max(sum(fault.least for fault in FAULTS), int(seconds / LEAST_GAP_S))
    gap_s = seconds / (len(drawn[:most]) + 1)
    return [
        (gap_s * (place + rng.uniform(0.5, 1.5)), fault) for place, fault in enumerate(drawn[:most])
    ]
