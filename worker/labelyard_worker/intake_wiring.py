"""Start of the intake for a checkpoint, with as many decoded images as keep its model busy."""

from labelyard_worker.intake.pixel_budget import PixelBudget
from labelyard_worker.intake.pool import IntakeOptions, IntakePool
from labelyard_worker.intake.sources.registry import resolve_fetcher
from labelyard_worker.pixels import ImageLimits
from labelyard_worker.settings import WorkerSettings
from labelyard_worker.vision.checkpoint import Checkpoint, blank_pixels

# For each stream. Seven times as many were no faster on small pictures: they are only decoded
# early, to lie in memory behind interactive work that comes later.
BATCHES_IN_FLIGHT = 16


def start_intake(settings: WorkerSettings, checkpoint: Checkpoint) -> IntakePool:
    """Start the child processes that fetch and decode images for the checkpoint."""
    return IntakePool(
        spec=checkpoint.pixel_spec,
        limits=ImageLimits.of(settings),
        fetchers=resolve_fetcher(settings),
        options=IntakeOptions.of(settings),
        budget=PixelBudget(count_pixel_slots(settings, checkpoint)),
    )


def with_checkpoint_decode(settings: WorkerSettings, checkpoint: Checkpoint) -> WorkerSettings:
    """Return the settings with the checkpoint's choice of how JPEGs are decoded."""
    return settings.model_copy(update={"decode": checkpoint.decode})


def count_pixel_slots(settings: WorkerSettings, checkpoint: Checkpoint) -> int:
    """Count the decoded images that keep the model busy: more would only fill memory."""
    batches = BATCHES_IN_FLIGHT * checkpoint.threads.streams
    fit = settings.max_pixels_in_flight_bytes // len(blank_pixels(checkpoint.pixel_spec).data)
    return max(1, min(batches * checkpoint.max_batch_size, fit, settings.queue_capacity))
