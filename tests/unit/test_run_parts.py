"""Names of the parts of split shards."""

from labelyard.runs.parts import ShardRange, name_parts, shard_of


def test_a_shard_may_be_split_any_number_of_times() -> None:
    """As many lethal pictures in one shard: each split leaves a part behind the picture."""
    names = []
    name, lines = "00017", ShardRange(plan="shard-00017", first=0, lines=1000)
    while lines.lines > 1:
        parts = name_parts(name, lines.cut(1))
        names += list(parts)
        name, lines = list(parts.items())[-1]

    assert len(names) == len(set(names)) == 2 * 999
    run_id = "0198f3c2-7a51-7cc3-98c4-dc0c0c07398f"
    assert shard_of(run_id, name, lines, tenant="shop", epoch=3).name == "00017.999.1"
