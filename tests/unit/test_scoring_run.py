"""The run of an evaluation: which ends have results, and where its model is looked up."""

from dataclasses import replace
from typing import Any

import pytest

from labelyard.errors import RunStateError
from labelyard.evaluation.scoring_run import check_end, shard_ids
from labelyard.messages import Failure
from labelyard.runs.options import make_run
from labelyard.runs.record import RunRecord
from labelyard.settings import ClientSettings

REFUSED = Failure(code="run_files", message="not permitted", is_retryable=False)


@pytest.fixture
def ended() -> RunRecord:
    request = make_run(ClientSettings(), "s3://b/m.jsonl", ["cat"], "s3://b/out/", {})
    return RunRecord("run-1", "succeeded", "succeeded", "default", request, 0.0)


def test_the_model_is_looked_up_in_the_newest_shards_of_each_epoch(ended: RunRecord) -> None:
    found = shard_ids(replace(ended, shards_planned=1_000, epoch=1))

    assert (found[0], found[-1], len(found)) == ("run-1.00992", "run-1.00999.e1", 16)


@pytest.mark.parametrize("state", ["succeeded", "partial", "failed"])
def test_a_run_of_which_every_line_has_its_own_error_has_results(
    ended: RunRecord, state: Any
) -> None:
    check_end(replace(ended, state=state))


@pytest.mark.parametrize(
    ("state", "failure", "said"),
    [
        ("cancelled", None, "is cancelled; labelyard run resume run-1"),
        ("expired", None, "is expired; evaluate with another prefix"),
        ("failed", REFUSED, "is failed: not permitted; evaluate with another prefix"),
    ],
)
def test_a_run_without_results_is_an_error_that_says_how_to_go_on(
    ended: RunRecord, state: Any, failure: Failure | None, said: str
) -> None:
    with pytest.raises(RunStateError, match=said):
        check_end(replace(ended, state=state, failure=failure))
