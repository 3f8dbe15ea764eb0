"""File of a label set's examples: their vectors, the fitted scorer, and the pictures' digests."""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from labelyard.evaluation.example_scores import TaughtLabels
from labelyard.messages.learned import MAX_EXAMPLES_BYTES, MAX_TAUGHT_LABELS

#: Raise it when an array changes its meaning, or a reader must not miss a new one.
VERSION: Final = 2
#: Earlier versions, which lack the arrays in ``_SINCE_2``.
READABLE: Final = (1, VERSION)
_ARRAYS: Final = {
    "version": "<i8",
    "labels": "<U256",
    "prototypes": "<f2",
    "examples": "<f2",
    "dual": "<f4",
    "width": "<f8",
    "weights": "<f8",
    "sha256": "|S64",
    "levels": "<f8",
    "nearness": "<f8",
}
_SINCE_2: Final = frozenset({"levels", "nearness"})
_FIRST_DATE: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class ExampleFile:
    """Contents of the file; the pictures themselves are not kept.

    Attributes:
        names: Of the taught labels, in the order of ``taught.labels``.
        taught: The fitted scorer. Its ``labels`` count the taught labels; :meth:`placed_in` makes
            them indices of a set.
        sha256: Digests of the example pictures, lower-case hex, without those of labels that
            are not in the file.
    """

    names: tuple[str, ...]
    taught: TaughtLabels
    sha256: tuple[str, ...]

    def to_bytes(self) -> bytes:
        """Write the file; equal contents give equal bytes."""
        taught = self.taught
        values = {
            "version": VERSION,
            "labels": self.names,
            "prototypes": taught.prototypes,
            "examples": taught.examples,
            "dual": taught.dual,
            "width": taught.width,
            "weights": taught.weights,
            "sha256": self.sha256,
            "levels": np.broadcast_to(taught.levels, len(self.names)),
            "nearness": taught.nearness,
        }
        body = io.BytesIO()
        with zipfile.ZipFile(body, "w", zipfile.ZIP_STORED) as archive:
            for name, kind in _ARRAYS.items():
                array = np.asarray(values[name], dtype=kind, order="C")
                # numpy.savez would write the time of the day.
                with archive.open(zipfile.ZipInfo(f"{name}.npy", _FIRST_DATE), "w") as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)
        return body.getvalue()

    @classmethod
    def from_bytes(cls, body: bytes) -> Self:
        """Read the file.

        Raises:
            ValueError: It is not such a file, or is damaged; the text says what is wrong.
        """
        arrays = _read_arrays(body)
        taught = TaughtLabels(
            labels=np.arange(len(arrays["labels"])),
            prototypes=arrays["prototypes"].astype(np.float32),
            examples=arrays["examples"].astype(np.float32),
            dual=arrays["dual"].astype(np.float64),
            width=float(arrays["width"]),
            weights=_three(arrays["weights"]),
            levels=arrays["levels"].astype(np.float64),
            nearness=_two(arrays["nearness"]),
        )
        names = tuple(arrays["labels"].tolist())
        _check(taught, len(names))
        return cls(names, taught, tuple(one.decode("ascii") for one in arrays["sha256"].tolist()))

    def placed_in(self, names: tuple[str, ...]) -> TaughtLabels:
        """Return the scorer for a set with the labels *names*, in their order.

        Raises:
            ValueError: The set lacks a taught label.
        """
        places = {name: place for place, name in enumerate(names)}
        if missing := [name for name in self.names if name not in places]:
            raise ValueError(f"the label set has no label {missing[0]!r}")
        labels = np.array([places[name] for name in self.names], dtype=np.intp)
        order = np.argsort(labels)
        taught = self.taught
        return TaughtLabels(
            labels=labels[order],
            prototypes=np.ascontiguousarray(taught.prototypes[order]),
            examples=taught.examples,
            dual=np.ascontiguousarray(taught.dual[:, order]),
            width=taught.width,
            weights=taught.weights,
            levels=taught.levels[order],
            nearness=taught.nearness,
        )


def digest_of(body: bytes) -> str:
    """Compute the digest of a file, lower-case hex."""
    return hashlib.sha256(body).hexdigest()


def _read_arrays(body: bytes) -> dict[str, NDArray[np.generic]]:
    if len(body) > MAX_EXAMPLES_BYTES:
        raise ValueError(f"{len(body)} bytes are too many (limit {MAX_EXAMPLES_BYTES})")
    arrays: dict[str, NDArray[np.generic]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_EXAMPLES_BYTES:
                raise ValueError("it unpacks to too many bytes")
            is_first = set(archive.namelist()).isdisjoint(f"{name}.npy" for name in _SINCE_2)
            for name, kind in _ARRAYS.items():
                if is_first and name in _SINCE_2:
                    continue
                array = np.lib.format.read_array(
                    io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False
                )
                if array.dtype != np.dtype(kind):
                    raise ValueError(f"{name} is of type {array.dtype}")
                arrays[name] = array
    except (zipfile.BadZipFile, KeyError, EOFError, OSError, MemoryError, OverflowError) as error:
        raise ValueError(f"not a file of examples ({type(error).__name__})") from error
    version = 0 if arrays["version"].shape else int(arrays["version"])
    if version not in READABLE or is_first != (version == READABLE[0]):
        raise ValueError("it was written by another version")
    if is_first:
        arrays |= {"levels": np.zeros(len(arrays["labels"])), "nearness": np.zeros(2)}
    return arrays


def _three(weights: NDArray[np.generic]) -> tuple[float, float, float]:
    text, near, regression = weights.astype(np.float64).tolist()
    return text, near, regression


def _two(line: NDArray[np.generic]) -> tuple[float, float]:
    slope, intercept = line.astype(np.float64).tolist()
    return slope, intercept


def _check(taught: TaughtLabels, labels: int) -> None:
    """Refuse shapes that do not fit together, and numbers that are not finite."""
    examples, dim = len(taught.examples), taught.prototypes.shape[-1]
    is_sound = (
        0 < labels <= MAX_TAUGHT_LABELS
        and taught.prototypes.shape == (labels, dim)
        and taught.examples.shape == (examples, dim)
        and taught.dual.shape == (examples, labels)
        and taught.levels.shape == (labels,)
    )
    numbers = (
        taught.prototypes,
        taught.examples,
        taught.dual,
        taught.weights,
        taught.width,
        taught.levels,
        taught.nearness,
    )
    if not is_sound or not all(np.isfinite(each).all() for each in numbers):
        raise ValueError("its arrays do not fit together")
