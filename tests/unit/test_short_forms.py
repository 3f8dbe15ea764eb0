"""Results, jobs and records at a prompt, in a notebook and in a data frame; what is sent stays."""

import json
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelyard import Client, ImageResult, Job, JobHandle, Label, LabelSet, Result, ScoredLabel
from labelyard.ledger import Record
from labelyard.messages import Failure, ImageRef
from labelyard.testing.samples import sample_job, sample_result

LONG = "x" * 256
MAX_REPR_CHARS = 700
HOSTILE = "<script>alert(1)</script>\"'&"


def full_job(name: str = LONG) -> Job:
    """Make a job of 64 images and 1,000 labels, whose names are as long as they may be."""
    images = tuple(ImageRef(id=f"{n}{name}"[:256], uri=f"s3://b/{n}") for n in range(64))
    labels = tuple(Label(name=f"{n}{name}"[:256]) for n in range(1000))
    return sample_job().model_copy(
        update={"images": images, "label_set": LabelSet(labels=labels), "job_id": "j" * 128}
    )


def image(name: str = "cat.jpg", **fields: object) -> ImageResult:
    return ImageResult.model_validate({"id": name, "uri": f"s3://b/{name}", **fields})


CAT = {"labels": [{"name": "a cat", "score": 0.9}, {"name": "a dog", "score": 0.1}]}
GONE = {"error": {"code": "image_not_found", "message": "not there", "retryable": False}}


def result_of(*images: ImageResult) -> Result:
    return Result(job_id="j-1", status="partial", tenant="default", images=images)


def record_of(job: Job) -> Record:
    return Record(
        job_id=job.job_id,
        state="succeeded",
        tenant=job.tenant,
        queue="bulk",
        images=len(job.images),
        submitted_at=0.0,
        published_at=0.0,
        finished_at=1.0,
        attempts=1,
        deaths=0,
        deaths_alone=0,
        last_death="",
        runner="",
        message=job.model_dump_json(),
        undelivered=(),
        expires_at=None,
        result=sample_result(job=job),
    )


def test_the_largest_of_each_is_short_at_a_prompt() -> None:
    job = full_job()
    result = sample_result(job=job)
    with Client() as client:
        handle = JobHandle(job.job_id, is_new=True, is_published=True, _client=client)
        things = (job, job.label_set, result, result.images[0], record_of(job), handle)
        shown = {type(thing).__name__: max(len(repr(thing)), len(str(thing))) for thing in things}

    assert {name: size for name, size in shown.items() if size > MAX_REPR_CHARS} == {}
    assert len(shown) == 6


def test_a_prompt_shows_what_a_person_looks_for() -> None:
    many = [image(f"{n}.jpg", **CAT) for n in range(4)]
    result = result_of(image(**CAT), image("x.jpg", **GONE), image("y.jpg", abstained=True), *many)

    assert repr(result) == (
        "Result(job_id='j-1', status='partial', images=[cat.jpg: a cat 0.900, "
        "x.jpg: image_not_found, y.jpg: none of these, … 4 more])"
    )
    assert repr(result.images[0]) == "ImageResult(id='cat.jpg', label='a cat', score=0.9)"
    assert repr(result.images[1]) == "ImageResult(id='x.jpg', error='image_not_found')"
    assert repr(LabelSet(labels=(Label(name="a"),))) == "LabelSet(labels=['a'], scoring='auto')"


def test_short_forms_change_nothing_that_is_sent() -> None:
    job = full_job()
    result = sample_result(job=job)

    assert Job.model_validate_json(job.model_dump_json()) == job
    assert Result.model_validate_json(result.model_dump_json()) == result
    assert len(json.loads(job.model_dump_json())["label_set"]["labels"]) == 1000


def test_rows_are_flat_one_for_each_image_in_their_order() -> None:
    both = {**CAT, "matched": ["a cat", "a dog"]}
    rows = result_of(image(**both), image("x.jpg", **GONE)).rows()
    names = ("abstained_because", "fit", "node", "node_score", "parents")
    nothing: dict[str, None] = dict.fromkeys(names)

    assert rows == [
        {
            "job_id": "j-1",
            "id": "cat.jpg",
            "uri": "s3://b/cat.jpg",
            "status": "succeeded",
            "label": "a cat",
            "score": 0.9,
            "matched": "a cat; a dog",
            "abstained": False,
            "error": None,
            "message": None,
            **nothing,
            "label_2": "a dog",
            "score_2": 0.1,
        },
        {
            "job_id": "j-1",
            "id": "x.jpg",
            "uri": "s3://b/x.jpg",
            "status": "failed",
            "label": None,
            "score": None,
            "matched": "",
            "abstained": False,
            "error": "image_not_found",
            "message": "not there",
            **nothing,
        },
    ]


class Tags(HTMLParser):
    """Tags, attributes and texts of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@given(name=st.text(min_size=1, max_size=80) | st.just(HOSTILE))
def test_a_notebook_shows_foreign_text_as_text(name: str) -> None:
    labels = (ScoredLabel(name=name, score=0.9), ScoredLabel(name=name, score=0.1))
    failure = Failure(code="x", message=name, is_retryable=False)
    shown = Result(
        job_id=name,
        status="partial",
        tenant="default",
        error=failure,
        images=(
            ImageResult(id=name, uri=name, labels=labels),
            ImageResult(id=name, uri=name, error=failure),
            ImageResult(id=name, uri=name, labels=labels, abstained=True),
        ),
    )

    page = shown._repr_html_()

    ours = {"div", "p", "table", "thead", "tbody", "tr", "th", "td", "b"}
    assert Tags(page).tags <= ours
    assert Tags(page).attributes <= {"title", "colspan"}


def test_a_notebook_shows_labels_scores_and_errors() -> None:
    texts = Tags(result_of(image(**CAT), image("x.jpg", **GONE))._repr_html_()).texts

    assert {"cat.jpg", "a cat", "0.900", "a dog 0.100", "x.jpg", "not there"} <= set(texts)


@pytest.mark.parametrize("status", ["succeeded", "failed"])
def test_a_data_frame_has_a_line_for_each_image(status: str) -> None:
    """Without pandas, which is not installed here: every row has the columns of the first form."""
    rows = sample_result(status).rows()  # type: ignore[arg-type]

    assert rows
    assert all(isinstance(cell, str | float | bool | None) for row in rows for cell in row.values())
