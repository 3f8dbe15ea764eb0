"""The commands for tenants: what is not given stays, and a change holds for the next submit."""

import json
from typing import Any

import pytest

from labelyard import Client
from tests.integration.client.test_cli import run

pytestmark = [
    pytest.mark.usefixtures("service_environment"),
    pytest.mark.allow_persistent_keys("policies and weights are kept until they are reset"),
]


def fields(*args: object) -> dict[str, Any]:
    result = run(*args, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    described: dict[str, Any] = json.loads(result.stdout)
    return described


def test_what_is_not_given_stays_as_it_is() -> None:
    fields("tenants", "set", "shop", "--weight", 3, "--max-open-images", 100_000)

    changed = fields("tenants", "set", "shop", "--images-per-s", 50, "--max-open-images", "none")

    assert changed == {
        "tenant": "shop",
        "weight": 3.0,
        "max_open_images": None,
        "images_per_s": 50.0,
        "prompts_per_s": None,
    }


def test_a_tenant_that_gets_its_own_policy_keeps_what_held_for_it() -> None:
    fields("tenants", "set", "*", "--max-open-images", 5)

    own = fields("tenants", "set", "shop", "--weight", 2)

    assert (own["max_open_images"], own["weight"]) == (5, 2.0)


def test_a_policy_is_shown_with_its_use_and_can_be_reset() -> None:
    fields("tenants", "set", "*", "--images-per-s", 10)
    fields("tenants", "set", "shop", "--max-open-images", 10)
    with Client() as client:
        client.submit(["s3://a/b.jpg"], ["cat"], tenant="shop")

    shown = fields("tenants", "show", "shop")
    reset = fields("tenants", "reset", "shop")

    assert (shown["policy_of"], shown["open_images"], shown["open_jobs"]) == ("shop", 1, 1)
    assert shown["images_left"] >= 9
    assert (reset["max_open_images"], reset["images_per_s"]) == (None, 10.0)
    assert fields("tenants", "show", "blog")["policy_of"] == "*"
    assert "open_images" not in fields("tenants", "show", "*")


def test_a_table_lists_the_tenants() -> None:
    fields("tenants", "set", "shop", "--weight", 3)

    result = run("tenants", "list")

    assert result.exit_code == 0
    assert "max_open_images" in result.stdout
    assert result.stdout.splitlines()[-1].split() == ["shop", "3", "none", "none", "none"]


def test_a_submit_beyond_a_quota_ends_with_3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELYARD_TENANT", "shop")
    fields("tenants", "set", "shop", "--max-open-images", 0)

    result = run("submit", "s3://a/b.jpg", "--labels", "cat")

    assert result.exit_code == 3
    assert result.stderr.startswith("tenant_quota_exceeded: the tenant has 0 open images, limit 0")


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("set", "shop"), "give a weight or a quota"),
        (("set", "shop", "--images-per-s", "many"), "--images-per-s: write a number, or none"),
        (("set", "shop", "--weight", "0"), "weight"),
        (("set", "a b", "--weight", "1"), "tenant: write 1 to 64 letters"),
        (("show", "a b"), "tenant: write 1 to 64 letters"),
    ],
    ids=repr,
)
def test_a_wrong_command_ends_with_2_and_a_sentence(args: tuple[str, ...], text: str) -> None:
    result = run("tenants", *args)

    assert result.exit_code == 2
    assert text in result.stderr
