"""Sizes that image processors resize pictures to, exactly as transformers computes them."""

import math

from labelyard_worker.pixels import PixelSpec


def resized_size(spec: PixelSpec, *, height: int, width: int) -> tuple[int, int]:
    """Return the height and width that *spec* resizes a picture to, before its crop.

    Source:
        transformers 5.23: ``PilBackend.resize`` and ``image_transforms.py``, whose
        truncations and roundings are kept.
    """
    match spec.resize:
        case "exact":
            return spec.height, spec.width
        case "shortest_edge":
            return _shortest_edge(spec.shortest_edge, height=height, width=width)
        case "both_edges":
            return _both_edges(spec, height=height, width=width)
        case "fit":
            scale = min(spec.height / height, spec.width / width)
            return int(height * scale), int(width * scale)
        case "patches":
            return _whole_patches(spec, height=height, width=width)
        case "none":
            return height, width


def _shortest_edge(edge: int, *, height: int, width: int) -> tuple[int, int]:
    if width <= height:
        return int(edge * height / width), edge
    return edge, int(edge * width / height)


def _both_edges(spec: PixelSpec, *, height: int, width: int) -> tuple[int, int]:
    edge, exact_edge = spec.shortest_edge, float(spec.shortest_edge)
    short, long = min(height, width), max(height, width)
    if long / short * edge > spec.longest_edge:
        exact_edge = spec.longest_edge * short / long
        edge = round(exact_edge)
    if short == edge:
        return height, width
    if width < height:
        return int(exact_edge * height / width), edge
    return edge, int(exact_edge * width / height)


def _whole_patches(
    spec: PixelSpec, *, height: int, width: int, tolerance: float = 1e-5
) -> tuple[int, int]:
    """Find by bisection the largest size of whole patches that is not too many.

    Source:
        ``get_image_size_for_max_num_patches`` of transformers 5.23 (SigLIP 2, NaFlex).
    """

    def scaled(scale: float) -> tuple[int, int]:
        return _to_patches(height * scale), _to_patches(width * scale)

    def _to_patches(edge: float) -> int:
        return max(spec.patch_size, math.ceil(edge / spec.patch_size) * spec.patch_size)

    low, high = tolerance / 10, 100.0
    while high - low >= tolerance:
        middle = (low + high) / 2
        rows, columns = (edge / spec.patch_size for edge in scaled(middle))
        if rows * columns <= spec.max_num_patches:
            low = middle
        else:
            high = middle
    return scaled(low)
