"""Findings: what stands out in a run's results, in sentences that a person can act on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from labelyard.runs.report.label_tally import median_of
from labelyard.runs.report.run_facts import RunFacts
from labelyard.runs.report.tally import CLOSE, RunTally
from labelyard.runs.report.wording import count, listed, percent, quoted

Weight = Literal["problem", "notice", "fine"]

MANY_FAILED: Final = 0.05
MANY_ABSTAINED: Final = 0.25
DOMINANT: Final = 0.6
MANY_CLOSE: Final = 0.2
LOW_MEDIAN: Final = 0.4
MANY_REPEATED: Final = 0.05
#: Fewer pictures than these say nothing about a label.
ENOUGH_PICTURES: Final = 20


@dataclass(frozen=True, slots=True)
class ReportFinding:
    """One sentence, and the section that has more.

    Attributes:
        section: Id of the section of the page.
    """

    weight: Weight
    title: str
    text: str
    section: str = ""


def find_all(tally: RunTally, facts: RunFacts) -> list[ReportFinding]:
    """Return the findings, problems first."""
    found = [*_about_output(tally, facts), *_about_pictures(tally), *_about_labels(tally, facts)]
    found.sort(key=lambda one: one.weight != "problem")
    if not found and tally.succeeded:
        text = "Every picture has its labels, and no label is suspicious. Look at the least certain pictures of each label all the same."
        found.append(ReportFinding("fine", "Nothing stands out", text, "labels"))
    return found


def _about_output(tally: RunTally, facts: RunFacts) -> Iterator[ReportFinding]:
    if not tally.total:
        text = "The output has no result lines: the run has not finished a shard, or this is not the output of a run."
        yield ReportFinding("problem", "No results", text)
    if facts.summary is None:
        text = "There is no summary.json, so the run has not ended. This page shows what is written so far."
        yield ReportFinding("notice", "Not finished", text)
    elif facts.summary.images.total != tally.total:
        text = (
            f"summary.json counts {count(facts.summary.images.total)} pictures, "
            f"the result files have {count(tally.total)}. Is a file missing?"
        )
        yield ReportFinding("problem", "Counts differ", text)
    if facts.retries:
        text = (
            f"Failed lines of this run were done again, in {listed(facts.retries)}. "
            "This page has the run itself; each of them has a report of its own."
        )
        yield ReportFinding("notice", "There are retries", text, "errors")
    if tally.unreadable:
        text = f"{count(tally.unreadable)} lines or files of the output cannot be read, and are not counted."
        yield ReportFinding("problem", "Unreadable output", text)


def _about_pictures(tally: RunTally) -> Iterator[ReportFinding]:
    lines = tally.total + tally.bad_lines
    errors = tally.known_errors
    if errors.total:
        code, number = errors.ranked()[0]
        is_many = errors.total > MANY_FAILED * lines
        text = (
            f"{count(errors.total)} of {count(lines)} lines ({percent(errors.total, lines)}) "
            f"failed, {count(number)} of them with {code}."
        )
        title = "Many failures" if is_many else "Some failures"
        yield ReportFinding("problem" if is_many else "notice", title, text, "errors")
    if tally.abstained > MANY_ABSTAINED * tally.succeeded:
        text = (
            f"{percent(tally.abstained, tally.succeeded)} of the pictures fit no label. "
            "Look at a sample of them: is a label missing?"
        )
        yield ReportFinding("notice", "Many without a label", text, "abstained")
    if tally.titles.disagreeing:
        disagreeing, compared = tally.titles.disagreeing, tally.titles.compared
        text = (
            f"{count(disagreeing)} of {count(compared)} texts ({percent(disagreeing, compared)}) "
            "contradict their pictures. A person should look at these pictures."
        )
        yield ReportFinding("notice", "Texts contradict pictures", text, "titles")
    repeats, distinct = tally.pictures.repeats(), tally.pictures.distinct()
    if repeats > MANY_REPEATED * (repeats + distinct):
        text = (
            f"{percent(repeats, repeats + distinct)} of the pictures have the same content as "
            "another one of the run."
        )
        yield ReportFinding("notice", "Repeated pictures", text, "duplicates")


def _about_labels(tally: RunTally, facts: RunFacts) -> Iterator[ReportFinding]:
    labels = tally.ranked_labels()
    labelled = sum(one.first for one in labels)
    if labelled < ENOUGH_PICTURES:
        return
    if len(labels) > 2 and labels[0].first > DOMINANT * labelled:
        text = (
            f"{quoted(labels[0].name)} is best for {percent(labels[0].first, labelled)} of the "
            "labelled pictures. Check its typical pictures: does it attract what it should not?"
        )
        yield ReportFinding("notice", "One label takes most", text, "labels")
    yield from _never_best([one.name for one in labels if not one.first], len(labels))
    if tally.close > MANY_CLOSE * labelled:
        (pair, number), *_ = tally.pairs.most_common(1) or [(("", ""), 0)]
        text = (
            f"On {percent(tally.close, labelled)} of the pictures the two best labels are less "
            f"than {CLOSE:g} apart, most often {quoted(pair[0])} and {quoted(pair[1])} "
            f"({count(number)} pictures)."
        )
        yield ReportFinding("notice", "Labels compete", text, "pairs")
    median = median_of(tally.top_bins)
    is_softmax = facts.label_set is not None and facts.label_set.scoring == "softmax"
    if median is not None and median < LOW_MEDIAN and (is_softmax or not tally.matched):
        text = (
            f"Half of the pictures have a best score below {median:.2f}: the labels may not "
            "describe these pictures."
        )
        yield ReportFinding("notice", "Low scores", text, "scores")


def _never_best(names: Sequence[str], number: int) -> Iterator[ReportFinding]:
    if names and number <= 1_000:
        text = f"{count(len(names))} of {count(number)} labels {'is' if len(names) == 1 else 'are'} best for no picture: {listed(names)}."
        yield ReportFinding("notice", "Unused labels", text, "labels")
