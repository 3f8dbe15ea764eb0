"""Sizes of shards: small ones first, then such that each takes about twenty seconds."""

from typing import Final

FIRST_LINES: Final = 64
TARGET_S: Final = 20.0
#: A shard that would take longer than this is cut before it begins.
LONGEST_S: Final = 60.0


def lines_of_shard(number: int, *, images_per_s: float, most: int) -> int:
    """Return the number of lines to plan for a shard.

    The first shards are small, so that scores begin while the source is read, and a fault shows
    early.

    Args:
        number: Number of the shard, from 0.
        images_per_s: Speed of one shard; 0 if it is not known.
        most: LABELYARD_SHARD_LINES, or less by the quotas of the tenant.
    """
    grown = FIRST_LINES << min(number // 2, 20)
    wanted = images_per_s * TARGET_S if images_per_s else most
    return max(1, min(grown, most, max(FIRST_LINES, int(wanted))))


def cuts_of_shard(lines: int, *, images_per_s: float, most: int) -> list[int]:
    """Return where to cut a planned shard that would take too long; empty if it need not be.

    Args:
        images_per_s: Speed of one shard; 0 if it is not known.
        most: Most lines that may be begun at once, by the run's limit on its rate.
    """
    longest = min(most, int(images_per_s * LONGEST_S) if images_per_s else most)
    if lines <= max(longest, 1):
        return []
    each = max(1, min(most, int(images_per_s * TARGET_S) if images_per_s else most))
    parts = -(-lines // each)
    return [lines * number // parts for number in range(1, min(parts, 64))]
