"""Jobs whose labels are explained: what they cost, what bounds them, and what others keep."""

import json
from typing import Any

import pytest

from labelyard import ClientSettings
from labelyard.errors import InvalidMessageError
from labelyard.ledger.commands import Commands
from labelyard.messages import ImageResult, Job, parse_job
from labelyard.outgoing import Outgoing, share_of
from labelyard.queues import Queue
from labelyard.submission import make_job

LABELS = ["a gun", "a dog", "a cat"]


def job(images: int = 1, **options: Any) -> Job:
    uris = [f"s3://photos/{number}.jpg" for number in range(images)]
    return make_job(ClientSettings(), uris, LABELS, **options)


def test_a_job_without_explanations_has_nothing_of_them_on_the_wire() -> None:
    message = json.loads(job().model_dump_json())

    assert not {"explain", "explain_grid"} & message.keys()
    assert "explanations" not in ImageResult(id="1", uri="s3://a/b").model_dump()


def test_an_explained_job_is_read_as_it_was_written() -> None:
    explained = job(explain=["a gun"], explain_grid=3)

    read = parse_job(explained.model_dump_json())

    assert read == explained
    assert (read.explain, read.explain_grid) == (("a gun",), 3)


@pytest.mark.parametrize(
    ("images", "options", "cost"),
    [
        (3, {}, 3),
        (1, {"explain": ["a gun"]}, 17),
        (2, {"explain": ["a gun", "a dog"]}, 34),
        (2, {"explain": ["a gun"], "explain_grid": 8}, 130),
    ],
)
def test_quotas_shares_and_backlog_count_the_extra_images(
    images: int, options: dict[str, Any], cost: int
) -> None:
    made = job(images, **options)

    opened = Commands(ClientSettings()).open(made, queue=Queue.BULK, is_limited=True)

    assert made.count_images() == cost
    assert Outgoing.of(made, queue="bulk", published_at=0.0).images == cost
    assert share_of(made.model_dump_json()) == ("default", cost)
    assert opened.args[5] == str(cost)


@pytest.mark.parametrize("grid", ["4", None, -1, 10**400, 1e999, [4]])
def test_a_message_that_nobody_checked_is_charged_within_bounds(grid: Any) -> None:
    message = json.dumps({"images": [{}], "explain": ["a"], "explain_grid": grid})

    assert share_of(message) == ("default", 17)


@pytest.mark.parametrize(
    ("images", "options", "why"),
    [
        (1, {"explain": ["a fox"]}, "'a fox', not a label of the set"),
        (1, {"explain": ["a gun", "a gun"]}, "twice"),
        (1, {"explain": "a gun"}, "explain: write a list"),
        (1, {"explain": ["a gun"], "explain_grid": 9}, "explain_grid: write a number of at most 8"),
        (1, {"explain": ["a gun"], "explain_grid": 1}, "at least 2"),
        (1, {"explain_grid": 5}, "explain_grid goes with explain"),
        (1, {"explain": ["a gun"], "rescore": True}, "rescore"),
        (17, {"explain": ["a gun"]}, "272 extra images .limit 256."),
        (5, {"explain": ["a gun"], "explain_grid": 8}, "320 extra images"),
        (1, {"explain": [f"label {number}" for number in range(9)]}, "at most 8 items"),
    ],
)
def test_what_cannot_be_explained_is_refused_with_its_reason(
    images: int, options: dict[str, Any], why: str
) -> None:
    with pytest.raises(InvalidMessageError, match=why):
        job(images, **options)
