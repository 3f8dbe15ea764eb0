"""Tables of the command line: no id is broken, whatever the width of the terminal."""

from hypothesis import given
from hypothesis import strategies as st

from labelyard.cli.tables import Column, pair_lines, table_lines
from labelyard.cli.top_page import fit_height

ID = "job_01jd8m2k3n4p5q6r7s8t9v0w1x-0123456789"
COLUMNS = (
    Column("job"),
    Column("state", rank=1),
    Column("images", is_right=True, rank=3),
    Column("tenant", rank=2),
    Column("reason", rank=4, is_sentence=True),
)
ROW = (ID, "failed", 12, "shop", "the storage of the bucket pets gave no answer in 30 s")


def drawn(width: int | None, row: tuple[object, ...] = ROW) -> list[str]:
    return [line.plain for line in table_lines(COLUMNS, [row], width=width)]


def test_without_a_terminal_every_column_is_printed_in_full() -> None:
    titles, row = drawn(None)

    assert all(str(cell) in row for cell in ROW)
    assert titles.split() == ["job", "state", "images", "tenant", "reason"]


@given(width=st.integers(min_value=1, max_value=200))
def test_an_id_stays_whole_and_nothing_else_is_wider_than_the_terminal(width: int) -> None:
    titles, row, *note = drawn(width)

    assert ID in row
    assert len(row) <= max(width, len(ID))
    left_out = [column.title for column in COLUMNS if column.title not in titles.split()]
    assert bool(note) == bool(left_out)
    assert all(title in note[0] for title in left_out)


def test_columns_are_left_out_by_their_rank_after_sentences_were_cut() -> None:
    assert drawn(95)[1].endswith("…")
    assert drawn(70)[0].split() == ["job", "state", "images", "tenant"]
    assert drawn(62)[0].split() == ["job", "state", "tenant"]
    assert drawn(50)[0].split() == ["job", "state"]
    assert drawn(30)[0].split() == ["job"]


def test_an_empty_column_that_may_be_left_out_is_without_a_note() -> None:
    assert drawn(None, (ID, "failed", 12, "", ""))[0].split() == ["job", "state", "images"]


def test_control_characters_do_not_reach_the_terminal() -> None:
    lines = drawn(None, ("a\x1b[31mb\nc", "", "", "", "")) + [
        line.plain for line in pair_lines({"name": "x\r\x07y"})
    ]

    assert all(char.isprintable() for line in lines for char in line)


def test_wide_characters_keep_columns_in_line() -> None:
    lines = [
        line.plain for line in table_lines(COLUMNS[:2], [("猫猫", "x"), ("cat", "y")], width=None)
    ]

    assert lines == ["job   state", "猫猫  x", "cat   y"]


@given(count=st.integers(min_value=0, max_value=50), height=st.integers(min_value=1, max_value=50))
def test_a_page_is_never_higher_than_the_terminal(count: int, height: int) -> None:
    lines = pair_lines({f"n{n}": n for n in range(count)})

    assert len(fit_height(lines, height)) <= height
