"""Shards are cut and split without losing or repeating a line, until the one at fault is alone."""

from hypothesis import given
from hypothesis import strategies as st

from labelyard.runs.parts import ShardRange
from labelyard_worker.runs.shard_sizes import cuts_of_shard, lines_of_shard
from labelyard_worker.runs.shard_trail import CAREFUL_PARTS, split_range


def lines_in(shards: list[ShardRange]) -> list[int]:
    return [line for each in shards for line in range(each.first, each.first + each.lines)]


@given(
    lines=st.integers(1, 5000),
    images_per_s=st.floats(0, 10_000),
    most=st.integers(1, 5000),
    first=st.integers(0, 100),
)
def test_a_cut_keeps_each_line_once(lines: int, images_per_s: float, most: int, first: int) -> None:
    shard = ShardRange(plan="shard-00000", first=first, lines=lines)

    parts = shard.cut(*cuts_of_shard(lines, images_per_s=images_per_s, most=most))

    assert lines_in(parts) == lines_in([shard])
    assert len(parts) <= 64


@given(number=st.integers(0, 10**6), images_per_s=st.floats(0, 1e6), most=st.integers(1, 20_000))
def test_a_planned_shard_is_never_larger_than_the_setting(
    number: int, images_per_s: float, most: int
) -> None:
    assert 1 <= lines_of_shard(number, images_per_s=images_per_s, most=most) <= most


@given(lines=st.integers(1, 3000), poison=st.integers(0, 2999), leaves_note=st.booleans())
def test_splits_isolate_the_line_at_fault_and_spare_all_others(
    lines: int, poison: int, leaves_note: bool
) -> None:
    poison %= lines
    todo = [ShardRange(plan="shard-00000", first=0, lines=lines)]
    done: list[int] = []
    deaths = 0
    while todo:
        shard = todo.pop()
        at = poison - shard.first
        if not 0 <= at < shard.lines:
            done += lines_in([shard])
            continue
        window = max(1, shard.lines // CAREFUL_PARTS)
        low = at // window * window
        high = min(low + window, shard.lines)
        deaths += 1
        parts = split_range(shard, {"low": low, "high": high} if leaves_note else {})
        if not parts:
            assert shard.lines == 1
            continue
        assert lines_in(parts) == lines_in([shard])
        todo += parts

    assert sorted(done) == [line for line in range(lines) if line != poison]
    assert deaths <= (4 if leaves_note else 13)
