"""Forms of the check: full size on a GPU, tiny on a CPU."""

from dataclasses import dataclass

VIT_B = "clip-vit-base-patch32"
VIT_L = "clip-vit-large-patch14"
SO400M = "siglip-so400m-patch14-384"
# In the order of interest: who runs out of time has the goals' checkpoints.
CHECKPOINTS = (VIT_L, SO400M, VIT_B)
MEGAPIXELS = (0.3, 2.0)
LABELS = 20


@dataclass(frozen=True, slots=True)
class Form:
    """Form of the check: sizes, times and checkpoints.

    Attributes:
        device: ``cuda`` or ``cpu``.
        dtypes: Of the image tower; the first is measured with all checkpoints first.
        job_sizes: Of labelyard's jobs.
        batch_sizes: Tried for the model limit.
        tutorials: Processes of the tutorial's Celery worker, one variant each; the first
            checkpoint alone is measured with all of them, the others with the last.
        seconds: Length of a measured run.
        lone_images: Classified one by one.
    """

    device: str
    dtypes: tuple[str, str]
    job_sizes: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    tutorials: tuple[int, ...]
    seconds: float
    lone_images: int

    @property
    def is_tiny(self) -> bool:
        """Return whether checkpoints are tiny, and figures mean nothing."""
        return self.device == "cpu"


FULL = Form(
    device="cuda",
    dtypes=("bfloat16", "float16"),
    job_sizes=(1, 64),
    batch_sizes=(1, 16, 64, 128, 256),
    tutorials=(1, 4),
    seconds=2.0,
    lone_images=24,
)
TINY = Form(
    device="cpu",
    dtypes=("float32", "bfloat16"),  # a CPU refuses float16
    job_sizes=(1, 64),
    batch_sizes=(1, 4),
    tutorials=(1,),
    seconds=0.5,
    lone_images=4,
)


def form_of(device: str) -> Form:
    """Choose the form for a device."""
    return FULL if device == "cuda" else TINY
