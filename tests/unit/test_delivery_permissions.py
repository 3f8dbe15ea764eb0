"""Results go where the operator lists it, and nowhere else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelyard.errors import InvalidMessageError, ServiceConfigError
from labelyard.messages import Deliver, Job
from labelyard.testing import sample_job
from labelyard.webhooks import WebhookAddress
from labelyard_worker.jobs.delivery.permissions import NotPermittedError, ResultPlaces, WebhookHosts

UNUSABLE = [
    "http://[host/",
    "http://[::1/hook",
    "https://host:port/",
    "https://host:99999/",
    "https://host:0/",
    "https://",
    "https:///path",
    "https://:8080/",
    "https://user@host/",
    "https://user:password@host/",
    "https://@host/",
    "https://host/a b",
    "https://host/\x00",
    "https://host/\r\nx: y",
    "https://host/ü",
    "https://host\\@evil.example/",
    "ftp://host/",
    "file:///etc/passwd",
    "https:host",
]


@pytest.mark.parametrize("address", UNUSABLE)
def test_an_address_that_cannot_be_called_is_refused_when_the_job_is_made(address: str) -> None:
    with pytest.raises(InvalidMessageError, match="webhook"):
        Deliver(webhook=address)


@pytest.mark.parametrize("address", UNUSABLE)
def test_the_refusal_of_an_address_does_not_repeat_it(address: str) -> None:
    with pytest.raises(ValueError, match="webhook") as raised:
        WebhookAddress.parse(address)

    assert "password" not in str(raised.value).replace("no password", "")


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = WebhookAddress.parse(text)
    except ValueError:
        return
    assert address.scheme in ("http", "https")
    assert address.host
    assert 0 < address.port < 65536
    assert address.target.startswith(("/", "?"))


@pytest.mark.parametrize(
    ("text", "authority", "target"),
    [
        ("https://Hooks.Example.com", "hooks.example.com", "/"),
        ("https://hooks.example.com.:443/a?b=c#d", "hooks.example.com", "/a?b=c"),
        ("http://hooks.example.com:8080/", "hooks.example.com:8080", "/"),
        ("http://[::1]:8080/x", "[::1]:8080", "/x"),
        ("https://host?x", "host", "/?x"),
    ],
)
def test_an_address_is_taken_apart(text: str, authority: str, target: str) -> None:
    address = WebhookAddress.parse(text)

    assert (address.authority, address.target) == (authority, target)


@pytest.mark.parametrize(
    ("listed", "address", "is_permitted"),
    [
        ("hooks.example.com", "https://hooks.example.com/a", True),
        ("hooks.example.com", "https://HOOKS.example.com:443/a", True),
        ("hooks.example.com", "https://hooks.example.com:8443/a", False),
        ("hooks.example.com", "http://hooks.example.com/a", False),
        ("hooks.example.com", "http://hooks.example.com:443/a", False),
        ("hooks.example.com", "https://evil.hooks.example.com/", False),
        ("hooks.example.com", "https://hooks.example.com.evil.net/", False),
        ("hooks.example.com:8443", "https://hooks.example.com:8443/", True),
        ("hooks.example.com:8443", "https://hooks.example.com/", False),
        ("https://hooks.example.com:8443", "https://hooks.example.com:8443/", True),
        ("http://hooks.internal", "http://hooks.internal/", True),
        ("http://hooks.internal", "http://hooks.internal:8080/", False),
        ("http://hooks.internal", "https://hooks.internal/", False),
        ("http://hooks.internal:8080", "http://hooks.internal:8080/", True),
        ("http://[fd00::7]:8080", "http://[fd00::7]:8080/", True),
        ("127.0.0.1", "http://127.0.0.1:5000/", True),
        ("localhost", "http://localhost:5000/", True),
        ("::1", "http://[::1]:5000/", True),
        ("localhost", "http://127.0.0.1:5000/", False),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5001/", False),
        ("", "https://hooks.example.com/", False),
    ],
)
def test_a_webhook_goes_to_a_listed_host_port_and_scheme(
    listed: str, address: str, is_permitted: bool
) -> None:
    hosts = WebhookHosts.parse([listed] if listed else [])

    if is_permitted:
        hosts.check(WebhookAddress.parse(address))
    else:
        with pytest.raises(NotPermittedError, match="LABELYARD_WEBHOOK_HOSTS"):
            hosts.check(WebhookAddress.parse(address))


@pytest.mark.parametrize(
    "entry", ["https://host/path", "host/path", "host:port", "user@host", "*.example.com/", "h h"]
)
def test_a_malformed_host_stops_the_start(entry: str) -> None:
    with pytest.raises(ServiceConfigError, match="LABELYARD_WEBHOOK_HOSTS"):
        WebhookHosts.parse([entry])


def job_for(object_uri: str, **changes: Any) -> Job:
    """Make a job that the contract may refuse today: an older one may be in a queue."""
    deliver = Deliver().model_copy(update={"object_uri": object_uri})
    return sample_job(deliver=deliver, **changes)


@pytest.mark.parametrize(
    ("listed", "uri", "is_permitted"),
    [
        ([], "s3://results/1.json", False),
        (["results"], "s3://results/1.json", True),
        (["results"], "s3://photos/1.json", False),
        (["results"], "s3://results2/1.json", False),
        (["photos/out/"], "s3://photos/out/1.json", True),
        (["photos/out/"], "s3://photos/cat.jpg", False),
        (["photos/out/"], "s3://photos/outer/cat.jpg", False),
        (["photos/out/"], "s3://photos/out/../cat.jpg", False),
        (["photos/out/"], "s3://photos//out/cat.jpg", False),
        (["results"], "s3://results/a//b.json", False),
        (["results"], "s3://results/./b.json", False),
        (["results"], "s3://results/b/", False),
        (["results"], "s3://results/b\x00.json", False),
        (["results/{tenant}/"], "s3://results/shop-eu/1.json", True),
        (["results/{tenant}/"], "s3://results/other/1.json", False),
        (["results/{tenant}/"], "s3://results/{tenant}/1.json", False),
        (["a-bucket", "results/x/"], "s3://results/x/1.json", True),
    ],
)
def test_an_object_is_written_to_listed_places_only(
    listed: list[str], uri: str, is_permitted: bool
) -> None:
    places = ResultPlaces.parse(listed, readable=())
    job = job_for(uri, tenant="shop-eu")

    if is_permitted:
        assert "/".join(places.check(job)) == uri.removeprefix("s3://")
    else:
        with pytest.raises(NotPermittedError):
            places.check(job)


def test_no_result_takes_the_place_of_a_picture_of_its_job() -> None:
    picture = sample_job().images[0].uri
    bucket = picture.removeprefix("s3://").partition("/")[0]

    with pytest.raises(NotPermittedError, match="picture"):
        ResultPlaces.parse([bucket], readable=()).check(job_for(picture))


def test_a_whole_bucket_of_pictures_cannot_be_listed_for_results() -> None:
    with pytest.raises(ServiceConfigError, match="photos/results/"):
        ResultPlaces.parse(["photos"], readable=["photos"])

    assert ResultPlaces.parse(["photos/results/"], readable=["photos"]).places


@pytest.mark.parametrize("bucket", ["my_results", "r2", "results.eu", "r" * 63])
def test_every_bucket_that_a_message_may_name_can_be_listed_for_results(bucket: str) -> None:
    job = job_for(f"s3://{bucket}/1.json")

    assert ResultPlaces.parse([bucket], readable=()).check(job) == (bucket, "1.json")


@pytest.mark.parametrize(
    "entry",
    [
        "Results",
        "s3://results",
        "results/x",
        "results//",
        "results/{user}/",
        "results/../",
        "127.0.0.1",
        "results..eu",
        "r" * 64,
    ],
)
def test_a_malformed_place_stops_the_start(entry: str) -> None:
    with pytest.raises(ServiceConfigError, match="LABELYARD_RESULT_BUCKETS"):
        ResultPlaces.parse([entry], readable=())
