"""Summaries of a shard and of a run: counts, errors by code, labels and score histograms."""

from typing import Final

from pydantic import Field

from labelyard.messages import Report

#: Bins of a score histogram, each ``1 / SCORE_BINS`` wide; a score of 1 is in the last one.
SCORE_BINS: Final = 20
#: Labels that a summary names, the most frequent first; the others are counted together.
MAX_SUMMARY_LABELS: Final = 10_000


class ImageCounts(Report):
    """Numbers of images: ``succeeded`` and ``failed`` make up ``total``."""

    total: int = 0
    succeeded: int = 0
    failed: int = 0


class TitleCounts(Report):
    """Numbers of images that were compared with the texts beside them.

    Attributes:
        n: Images with such a text.
        disagree: Those of them that their text contradicts.
    """

    n: int = 0
    disagree: int = 0


class ShardSummary(Report):
    """Summary of one shard, which the worker stores beside the shard's files.

    Attributes:
        shard: Number of the shard as in its files' names, ``00017`` or, of a half, ``00017.0.500``.
        images: Planned images.
        bad_lines: Manifest lines that name no image.
        labels: How often each label was the best one.
        matched: How often each label was matched.
        abstained: Images of which an ``abstain`` prompt fitted best.
        errors: How often each code occurred, those of bad lines included.
        score_histograms: Numbers of scores of each label in the bins from 0 to 1, of images
            that name the label.
        contents: First 8 bytes of the SHA-256 of each file that was read, base64; equal files
            of a run are found by them.
        seconds: Time that the shard took.
        titles: Comparisons with texts beside images; left out if there are none.
    """

    shard: str
    images: ImageCounts = ImageCounts()
    bad_lines: int = 0
    labels: dict[str, int] = Field(default_factory=dict)
    matched: dict[str, int] = Field(default_factory=dict)
    abstained: int = 0
    errors: dict[str, int] = Field(default_factory=dict)
    score_histograms: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    contents: str = ""
    seconds: float = 0.0
    titles: TitleCounts | None = Field(default=None, exclude_if=lambda titles: titles is None)


class DuplicateCounts(Report):
    """Equal files among those that a run read.

    Attributes:
        distinct: Number of different files.
        repeated: Files that are equal to another one before them.
        is_exact: Whether both were counted; else they are estimates.
    """

    distinct: int = 0
    repeated: int = 0
    is_exact: bool = True


class RunSummary(Report):
    """Summary of a run, ``summary.json``.

    Attributes:
        run_id: The run.
        state: State in which the run ended.
        images: Planned images.
        bad_lines: Manifest lines that name no image.
        labels: How often each label was the best one, the most frequent first.
        labels_left_out: Number of labels beyond ``MAX_SUMMARY_LABELS``.
        matched: How often each label was matched.
        abstained: Images of which an ``abstain`` prompt fitted best.
        errors: How often each code occurred.
        score_histograms: Numbers of scores of each label in ``SCORE_BINS`` bins from 0 to 1.
        duplicates: Equal files.
        shards: Number of shards, halves counted singly.
        seconds: From the start of the run to its end.
        images_per_s: Images in a second of that time.
        computed_again: Images that were scored more than once, after a worker died.
        titles: Comparisons with texts beside images; left out if there are none.
    """

    run_id: str
    state: str
    images: ImageCounts = ImageCounts()
    bad_lines: int = 0
    labels: dict[str, int] = Field(default_factory=dict)
    labels_left_out: int = 0
    matched: dict[str, int] = Field(default_factory=dict)
    abstained: int = 0
    errors: dict[str, int] = Field(default_factory=dict)
    score_histograms: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    duplicates: DuplicateCounts = DuplicateCounts()
    shards: int = 0
    seconds: float = 0.0
    images_per_s: float = 0.0
    computed_again: int = 0
    titles: TitleCounts | None = Field(default=None, exclude_if=lambda titles: titles is None)
