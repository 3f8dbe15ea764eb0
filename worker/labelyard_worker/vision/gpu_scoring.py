"""Selection of labels on the model's device: only the labels that may be named are copied back.

On a GPU, 10,000 labels cost a job thread a millisecond of CPU for each image, which is more than
the image tower costs the GPU. Here the product, the scores and the selection stay on the device,
and a few numbers for each image are copied to the host, which ranks them (``ranking.py``).
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch

from labelyard_worker.vision import devices
from labelyard_worker.vision.lru import ByteLru
from labelyard_worker.vision.scoring import Floats, LabelMatrix, Scaling, to_logits, to_scores
from labelyard_worker.vision.selection import Selection
from labelyard_worker.vision.tree_scores import score_on_device

# Priority of the stream: lower numbers go first, 0 is that of the forward passes.
FIRST: Final = -1


@dataclass(frozen=True, eq=False)
class GpuLabels:
    """A label set on the device.

    Attributes:
        text_embeds: As in the matrix, shape (labels + abstain, dim).
        thresholds: As in the matrix, float64, shape (labels,).
    """

    text_embeds: torch.Tensor
    thresholds: torch.Tensor

    @classmethod
    def of(cls, matrix: LabelMatrix, device: torch.device) -> "GpuLabels":
        """Copy the parts of *matrix* that selection needs to *device*."""
        return cls(
            torch.from_numpy(matrix.text_embeds).to(device),
            torch.from_numpy(matrix.thresholds).to(device),
        )


class GpuSelector:
    """Selects labels on one device, and keeps recent label sets there.

    Safe to call from several threads. On a GPU, all of them share one stream, whose small
    kernels go before those of the forward passes: a job waits for a handful of them in turn.
    """

    def __init__(self, device: torch.device, *, capacity_bytes: int) -> None:
        """Start with no label set.

        Args:
            capacity_bytes: Most bytes of label sets kept on the device.
        """
        self._device = device
        self._labels: ByteLru[str, GpuLabels] = ByteLru(capacity_bytes)
        self._stream = (
            torch.cuda.Stream(device, priority=FIRST)  # type: ignore[no-untyped-call]
            if device.type == "cuda"
            else None
        )

    def select(
        self, image_embeds: Floats, matrix: LabelMatrix, scaling: Scaling, *, top_k: int
    ) -> Selection:
        """Select labels; the counterpart of :func:`~labelyard_worker.vision.selection.select_on_host`.

        Raises:
            BatcherFullError: The device has no memory left.
            DeviceFailedError: The device is lost.
        """
        with (
            devices.device_errors_as_ours(),
            torch.inference_mode(),
            torch.cuda.stream(self._stream),
        ):
            labels = self._copy_labels(matrix)
            cosines = self._multiply(image_embeds, labels)
            logits = to_logits(cosines.double(), scaling, temperature=matrix.temperature)
            scores = to_scores(logits, matrix.scoring, torch)
            selection = _select_labels(cosines, logits, scores, labels.thresholds, top_k=top_k)
            if matrix.tree is None:
                return selection
            nodes = score_on_device(scores[:, : matrix.n_labels], matrix.tree)
            return replace(selection, nodes=nodes)

    def _multiply(self, image_embeds: Floats, labels: GpuLabels) -> torch.Tensor:
        """Multiply images with the label set, shape (images, labels + abstain)."""
        return torch.from_numpy(image_embeds).to(self._device) @ labels.text_embeds.T

    def _copy_labels(self, matrix: LabelMatrix) -> GpuLabels:
        """Return the label set on the device; copy it there if it is new."""
        known = self._labels.get(matrix.digest)
        if known is None:
            known = GpuLabels.of(matrix, self._device)
            self._labels.put(matrix.digest, known, size_bytes=matrix.text_embeds.nbytes)
        return known


def _select_labels(
    cosines: torch.Tensor,
    logits: torch.Tensor,
    scores: torch.Tensor,
    thresholds: torch.Tensor,
    *,
    top_k: int,
) -> Selection:
    """Select on the device, and copy the selected labels to the host at once.

    Each step that needs a number of the device waits for it: there are two, the count of the
    selected labels and their copy.
    """
    n_labels = len(thresholds)
    labels, abstain = logits[:, :n_labels], logits[:, n_labels:]
    cut = labels.topk(min(top_k, n_labels), dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    # Not below, so that NaN is selected and refused.
    is_selected = ~(labels < cut) | (scores[:, :n_labels] >= thresholds)
    rows, columns = is_selected.nonzero(as_tuple=True)
    best_abstain = (
        abstain.amax(dim=1) if abstain.shape[1] else logits.new_full((len(logits),), -np.inf)
    )
    fits = cosines[:, :n_labels].amax(dim=1).double()
    # As float64, which holds every index exactly.
    table = torch.stack(
        [
            rows.double(),
            columns.double(),
            labels[rows, columns],
            scores[rows, columns],
            best_abstain[rows],
            fits[rows],
        ]
    )  # (6, selected)
    images, indices, *numbers = table.cpu().numpy()
    return Selection(images.astype(np.intp), indices.astype(np.intp), *numbers)
