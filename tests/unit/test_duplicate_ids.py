"""The table of custom ids: exact, in a bounded number of bytes for each id."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from labelyard_worker.runs.sources.duplicate_ids import FIRST_SLOTS, DuplicateIds


def flags_of_a_set(blocks: list[list[str]]) -> list[list[bool]]:
    """Find repeated ids with a set."""
    seen: set[str] = set()
    flags = []
    for block in blocks:
        flags.append([])
        for one in block:
            flags[-1].append(one in seen)
            seen.add(one)
    return flags


@given(st.lists(st.lists(st.integers(0, 99).map(str), max_size=40), max_size=20))
def test_repeated_ids_are_found_as_a_set_finds_them(blocks: list[list[str]]) -> None:
    table = DuplicateIds()

    found = [table.add(block).tolist() for block in blocks]

    assert found == flags_of_a_set(blocks)
    assert len(table) == len({one for block in blocks for one in block})


def test_a_table_that_grows_forgets_nothing() -> None:
    table = DuplicateIds()
    ids = [f"id-{number}" for number in range(20 * FIRST_SLOTS)]

    slices = [ids[at : at + 999] for at in range(0, len(ids), 999)]

    assert not any(table.add(some).any() for some in slices)
    assert all(table.add(some).all() for some in slices)
    assert table.held_bytes <= 26 * len(ids)


def test_equal_places_and_the_value_of_an_empty_slot_are_no_repetition() -> None:
    fingerprints = np.arange(5_000, dtype=np.uint64)  # 0 is among them

    table = DuplicateIds()

    assert not table.add_fingerprints(fingerprints).any()
    assert table.add_fingerprints(fingerprints).all()
