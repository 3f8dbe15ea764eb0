"""The report of a run: counts, chosen pictures and findings, from output that nobody checked."""

import io
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from labelyard.errors import InvalidMessageError
from labelyard.messages import TitleFinding
from labelyard.runs.lines import ErrorLine, ResultLine
from labelyard.runs.report import write_report
from labelyard.runs.report.gallery import choose_pictures, limits_for
from labelyard.runs.report.output_files import lines_of
from labelyard.runs.report.picture_sources import FolderPictures, PictureUnreadableError
from labelyard.runs.report.tally import RunTally
from labelyard.runs.report.throughput import measure_throughput
from labelyard.runs.report.thumbnails import make_thumbnails, shrink
from labelyard_worker.runs.files.parquet_tables import to_results, to_row
from tests.support import pictures
from tests.support.run_output import LABELS, failed, generated, scored, write_many, write_run

PEAK = """
import resource, sys
from labelyard.runs.report import write_report

for folder in sys.argv[1:]:
    write_report(folder, f"{folder}.html", has_thumbnails=False)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


class Shown(HTMLParser):
    """Parser of a report: its text, its elements, and the figures at its top."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.words: list[str] = []
        self.alts: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[name] += 1
        self.alts += [str(value) for key, value in attrs if key == "alt"]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        """All text, with a space between elements."""
        return " ".join(self.words)

    def figure(self, name: str) -> str:
        """Return the number below a heading at the top."""
        return self.words[self.words.index(name, self.words.index("Lines")) + 1]


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """Copies of the pictures of a run's first 50 lines."""
    folder = tmp_path / "copies"
    folder.mkdir()
    for line in range(1, 51):
        (folder / f"item-{line:06d}.jpg").write_bytes(pictures.jpeg(seed=line))
    return folder


def report_of(run: Path, **options: object) -> Shown:
    path = run.parent / "report.html"
    write_report(run, path, **{"has_thumbnails": False, **options})  # type: ignore[arg-type]
    return Shown(path)


def tally_of(lines: object, *, thresholds: dict[str, float | None] | None = None) -> RunTally:
    tally = RunTally(seed=0, limits=limits_for(360), thresholds=thresholds or {})
    for line in lines:  # type: ignore[attr-defined]
        tally.add(line)
    return tally


def test_the_figures_are_those_of_a_recount(tmp_path: Path) -> None:
    lines = list(generated(3_000))
    bad = [ErrorLine(line=4_000, code="bad_json", message="not JSON")]
    run = write_run(tmp_path / "run", lines, errors=bad)

    shown = report_of(run)

    good = [line for line in lines if line.status == "succeeded"]
    abstained = sum(line.abstained for line in good)
    repeats = len(good) - len({line.sha256 for line in good})
    assert shown.figure("Lines") == "3,001"
    assert shown.figure("With labels") == f"{len(good) - abstained:,}"
    assert shown.figure("No label fits") == str(abstained)
    assert shown.figure("Failed") == str(3_001 - len(good))
    assert shown.figure("Repeated content") == str(repeats)
    best = Counter(line.top_label for line in good if not line.abstained)
    for name, count in best.items():
        assert f"best for {count:,} pictures" in shown.text
        assert str(name) in shown.text


@pytest.mark.parametrize("name", LABELS[:2])
def test_a_label_keeps_its_most_and_its_least_certain_pictures(name: str) -> None:
    lines = list(generated(2_000))

    tally = tally_of(lines)

    scores = sorted(one.top_score for one in lines if one.top_label == name and not one.abstained)
    strips = tally.labels[name].strips
    assert [one.score for one in strips.uncertain.items()] == scores[:12]
    assert [one.score for one in strips.certain.items()] == scores[::-1][:12]


def test_pictures_near_a_threshold_are_from_both_sides_and_of_any_rank() -> None:
    lines = [scored(n, ("a cat", n / 100), ("a dog", 1 - n / 100)) for n in range(50, 100)]

    tally = tally_of(lines, thresholds={"a cat": 0.7, "a dog": 0.3})

    for name, threshold in (("a cat", 0.7), ("a dog", 0.3)):
        scores = [one.score or 0 for one in tally.labels[name].strips.near.items()]
        assert min(scores) < threshold < max(scores)
        assert max(abs(score - threshold) for score in scores) < 0.07


def test_a_label_with_few_pictures_shows_them_all_in_one_strip() -> None:
    lines = [scored(n, ("a cat", n / 10), ("a dog", 0.05)) for n in range(5, 9)]

    (section,) = choose_pictures(tally_of(lines), sample=360).labels

    (strip,) = section.strips
    assert strip.reason == "All pictures"
    assert [one.score for one in strip.pictures] == [0.8, 0.7, 0.6, 0.5]


def test_typical_pictures_are_a_sample_that_neither_order_nor_files_change(tmp_path: Path) -> None:
    lines = list(generated(1_000))

    forward, backward = tally_of(lines), tally_of(reversed(lines))

    for name in LABELS:
        kept = [tally.labels[name].strips.typical.items() for tally in (forward, backward)]
        assert kept[0] == kept[1]


def test_texts_that_contradict_their_pictures_are_counted_and_the_worst_ones_shown(
    tmp_path: Path,
) -> None:
    def titled(line: int, agreement: float) -> ResultLine:
        found = TitleFinding(
            label="a <dog>", score=0.9, agreement=agreement, agrees=agreement >= 0.05
        )
        return scored(line, ("a cat", 0.8), ("a dog", 0.1), title=found)

    lines = [*(titled(n, 0.5) for n in range(1, 61)), *(titled(61 + n, n / 1e2) for n in range(40))]
    run = write_run(tmp_path / "run", [*lines, scored(200, ("a cat", 0.9))])

    with_texts = report_of(run, sample=100)
    limits = limits_for(100)
    tally = tally_of(lines)
    gallery = choose_pictures(tally, sample=100)
    without = report_of(write_run(tmp_path / "plain", [scored(1, ("a cat", 0.9))]))

    assert "5 of 100 texts (5 %) contradict their pictures" in with_texts.text
    assert "text:  a <dog> , together  a cat , agreement 0.090" in with_texts.text
    assert [one.title.agreement for one in gallery.doubtful[:3]] == [0.0, 0.01, 0.02]
    assert len(gallery.doubtful) == limits.titles == 10
    assert len({*gallery.pictures()}) <= 100
    assert not choose_pictures(tally_of([titled(1, 0.5)]), sample=100).doubtful
    assert "Texts" not in without.text


def test_equal_seeds_write_equal_pages_and_others_choose_other_pictures(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", generated(2_000))

    pages = []
    for seed in (1, 1, 2):
        write_report(run, tmp_path / "page.html", has_thumbnails=False, seed=seed)
        pages.append((tmp_path / "page.html").read_text())

    assert pages[0] == pages[1]
    assert pages[0] != pages[2]


def test_results_in_parquet_give_the_same_page_as_in_jsonl(tmp_path: Path) -> None:
    lines = list(generated(500))
    as_lines, as_rows = (write_run(tmp_path / name, lines) for name in ("a", "b"))
    for file in as_rows.glob("results-*.jsonl"):
        file.unlink()
    rows = [to_row(line) for line in lines]
    table = pyarrow.Table.from_batches([to_results(rows[:200]), to_results(rows[200:])])
    parquet.write_table(table, as_rows / "results-00000.parquet")

    texts = [report_of(run).text.replace(str(run), "") for run in (as_lines, as_rows)]

    assert texts[0] == texts[1]


def test_a_line_that_is_not_a_result_is_counted_and_harms_no_other(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", generated(100))
    with (run / "results-00000.jsonl").open("ab") as file:
        for bad in (b"{", b"\xff\xfe", b"[]", b"null", b"{}", b'{"line":1,"custom_id":"\\ud800"}'):
            file.write(bad + b"\n")
        file.write(b'{"x": "' + b"y" * (17 * 2**20) + b'"}\n')
    (run / "results-00009.parquet").write_bytes(b"PAR1 no table PAR1")

    shown = report_of(run)

    assert "8 lines or files of the output cannot be read" in shown.text
    assert shown.figure("Lines") == "100"


def test_a_long_line_is_read_in_pieces_and_its_neighbours_are_whole() -> None:
    class Stream(io.BytesIO):
        """Stream that refuses to give a line of any length."""

        def readline(self, size: int | None = -1) -> bytes:
            assert size == 10
            return super().readline(size)

    stream = Stream(b"one\n\n" + b"x" * 95 + b"\nexactly10\ntwo")

    assert list(lines_of(stream, max_bytes=10)) == [b"one\n", None, b"exactly10\n", b"two"]


def test_output_that_is_not_finished_or_not_whole_is_named(tmp_path: Path) -> None:
    unfinished = write_run(tmp_path / "a", generated(50), is_ended=False)
    partly = write_run(tmp_path / "b", generated(50), shard_size=10)
    (partly / "results-00002.jsonl").unlink()

    assert "Not finished" in report_of(unfinished).text
    assert "summary.json counts 50 pictures, the result files have 40" in report_of(partly).text


def test_failures_are_named_even_if_the_files_of_errors_are_missing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [scored(1, ("a cat", 0.9)), failed(2), failed(3)])
    (run / "errors-00000.jsonl").unlink()

    shown = report_of(run)

    assert "2 of 3 lines (67 %) failed, 2 of them with image_not_found" in shown.text
    assert "image_not_found: the picture of line 3" in shown.text


@pytest.mark.parametrize("document", ["", "[]", "{", '{"run_id": 1, "images": "x"}', "null"])
def test_a_manifest_or_summary_that_is_not_one_is_left_out(tmp_path: Path, document: str) -> None:
    run = write_run(tmp_path / "run", generated(50))
    (run / "summary.json").write_text(document)
    (run / "manifest.json").write_text(document)

    assert report_of(run).figure("Lines") == "50"


def test_a_folder_that_is_not_a_run_s_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidMessageError, match="no output of a run"):
        write_report(tmp_path, tmp_path / "x.html")
    with pytest.raises(InvalidMessageError, match="no such folder"):
        write_report(tmp_path / "gone", tmp_path / "x.html")


def test_runs_over_the_failed_lines_are_named_and_not_mixed_in(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [*generated(50), failed(51)])
    write_run(run / "retry-1", [scored(51, ("a cat", 0.9))])

    shown = report_of(run)

    assert "done again, in “retry-1”" in shown.text
    assert shown.figure("Lines") == "51"


def test_findings_name_unused_dominant_and_competing_labels_and_many_failures(
    tmp_path: Path,
) -> None:
    lines = [scored(n, ("a cat", 0.5), ("a dog", 0.45)) for n in range(1, 91)]
    lines += [failed(n) for n in range(91, 101)]
    run = write_run(tmp_path / "run", lines)

    text = report_of(run).text

    assert "Many failures" in text
    assert "“a cat” is best for 100 % of the labelled pictures" in text
    assert "4 of 5 labels are best for no picture: “a bowl of soup”, “a dog”" in text
    assert "most often “a cat” and “a dog” (90 pictures)" in text


def test_a_run_without_faults_has_a_finding_that_names_none(tmp_path: Path) -> None:
    lines = [scored(n, (LABELS[n % 5], 0.9), (LABELS[(n + 1) % 5], 0.1)) for n in range(100)[1:]]
    run = write_run(tmp_path / "run", lines)

    assert "Nothing stands out" in report_of(run).text


def test_pictures_that_come_most_often_are_found_among_many_others() -> None:
    digest = "f" * 64
    lines = [
        scored(n, ("a cat", 0.9), **({"sha256": digest} if n % 500 == 0 else {}))
        for n in range(1, 40_001)
    ]

    tally = tally_of(lines)

    assert tally.pictures.repeats() == 79
    ((picture, count), *_) = tally.groups(3)
    assert picture.identity == digest
    assert 70 <= count <= 80


def test_labels_without_end_are_counted_in_bounded_memory() -> None:
    lines = [scored(n, (f"label {n}", 0.9), ("a cat", 0.1)) for n in range(1, 5_001)]
    lines += [scored(n, ("a cat", 0.8)) for n in range(6_000, 6_100)]

    tally = tally_of(lines)

    assert len(tally.labels) <= 2_000
    assert tally.ranked_labels()[0].name == "a cat"
    assert len(tally.labels) + tally.pooled_labels >= 5_000


def test_a_page_has_a_bounded_number_of_pictures_for_any_run_and_any_wish(tmp_path: Path) -> None:
    tally = tally_of(generated(10_000, labels=[f"label {n}" for n in range(300)]))

    for sample in (0, 1, 5, 50, 360, 600):
        gallery = choose_pictures(tally, sample=sample)
        assert len(list(gallery.pictures())) <= sample
    with pytest.raises(InvalidMessageError, match="0 to 600"):
        write_report(tmp_path, tmp_path / "x.html", sample=601)


@pytest.mark.timeout(120)
def test_a_hundred_thousand_lines_take_no_more_memory_than_twenty_thousand(tmp_path: Path) -> None:
    folders = [write_many(tmp_path / name, n) for name, n in (("a", 20_000), ("b", 100_000))]

    peaks = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, folders)],
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    ).stdout.split()

    assert int(peaks[1]) - int(peaks[0]) < 16  # MiB
    assert Shown(tmp_path / "b.html").figure("Lines") == "100,000"


def test_thumbnails_are_shown_for_what_a_folder_has_and_others_are_named(
    tmp_path: Path, copies: Path
) -> None:
    run = write_run(tmp_path / "run", [scored(n, ("a cat", 0.9)) for n in range(1, 61)])

    written = write_report(run, tmp_path / "x.html", pictures=copies)
    shown = Shown(tmp_path / "x.html")

    assert shown.tags["img"] == written.pictures > 15
    assert "item-000050.jpg: a cat, 0.90" in shown.alts or written.missing
    assert written.size_bytes < 1_000_000


@pytest.mark.parametrize("name", sorted(pictures.GOOD_PICTURES.keys() - {"plain.tiff"}))
def test_every_format_but_tiff_becomes_a_small_thumbnail(name: str) -> None:
    """libtiff writes to standard error, so TIFF is left out."""
    content = pictures.GOOD_PICTURES[name]((1200, 800))  # type: ignore[call-arg]

    address = shrink(content, max_bytes=20_000)

    assert address.startswith("data:image/webp;base64,")
    assert len(address) <= 20_000


class NoAnswer:
    """Place whose pictures never come, counting the attempts."""

    def __init__(self) -> None:
        self.attempts = 0

    def read(self, uri: str) -> bytes:
        self.attempts += 1
        raise PictureUnreadableError("no answer")


def test_a_place_without_pictures_is_given_up_soon_and_each_missing_one_is_counted() -> None:
    place = NoAnswer()

    made = make_thumbnails(map(str, range(300)), place, max_bytes=9_000)

    assert place.attempts < 40
    assert made.missing == {"no answer": 300}


def test_no_picture_is_begun_when_the_time_is_over() -> None:
    place = NoAnswer()

    made = make_thumbnails(map(str, range(300)), place, max_bytes=9_000, time_limit_s=0.0)

    assert place.attempts == 0
    assert made.missing == {"the time for reading pictures was over": 300}


def test_a_folder_gives_no_file_outside_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    (folder / "shop").mkdir(parents=True)
    (folder / "shop" / "a.jpg").write_bytes(b"A")
    (tmp_path / "secret").write_bytes(b"S")
    (folder / "link").symlink_to(tmp_path / "secret")
    place = FolderPictures(folder)

    assert place.read("s3://shop/a.jpg") == place.read("https://x/shop/a.jpg?v=1") == b"A"
    for uri in ("s3://shop/../secret", "s3://../secret", "s3://shop/link", "secret", "s3://", ""):
        with pytest.raises(PictureUnreadableError):
            place.read(uri)


def test_the_throughput_is_that_of_the_files_and_none_for_copies() -> None:
    written = [(100.0 + 10 * n, 500) for n in range(1, 31)]

    measured = measure_throughput(written, started_at=100.0, run_seconds=300.0)

    assert measured is not None
    assert sum(measured.images_per_s) * measured.interval_s == pytest.approx(15_000)
    assert max(measured.images_per_s) == pytest.approx(50, rel=0.35)
    assert measure_throughput(written, started_at=100.0, run_seconds=9_000.0) is None
    assert measure_throughput(written[:3], started_at=100.0) is None
