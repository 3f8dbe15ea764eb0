"""Commands for tenants that share one installation: weights and quotas."""

from typing import Annotated, Any, Final

import typer

from labelyard.cli.inputs import AsJson
from labelyard.cli.output import print_fields, print_json
from labelyard.cli.tables import Column, print_columns
from labelyard.client import Client
from labelyard.errors import InvalidMessageError
from labelyard.tenants import EVERY_OTHER, TenantPolicy, TenantUsage, tenant_name

app: typer.Typer = typer.Typer(
    help="Weights and quotas of those who share the installation.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

NO_LIMIT: Final = "none"
COLUMNS: Final = (
    Column("tenant"),
    *(
        Column(name, is_right=True)
        for name in ("weight", "max_open_images", "images_per_s", "prompts_per_s")
    ),
)

TenantArgument = Annotated[
    str, typer.Argument(metavar="TENANT", help="Its name; '*' is all without a policy of their own")
]


@app.command("set")
def set_policy(
    tenant: TenantArgument,
    weight: Annotated[
        float | None, typer.Option(help="Share of the workers, relative to the others' weights")
    ] = None,
    max_open_images: Annotated[
        str | None, typer.Option(metavar="NUMBER|none", help="Most images that are not final")
    ] = None,
    images_per_s: Annotated[
        str | None, typer.Option(metavar="NUMBER|none", help="Most images to submit in a second")
    ] = None,
    prompts_per_s: Annotated[
        str | None, typer.Option(metavar="NUMBER|none", help="Most prompts to submit in a second")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change a tenant's weight and quotas at once; what is not given stays as it is."""
    given = {
        "max_open_images": max_open_images,
        "images_per_s": images_per_s,
        "prompts_per_s": prompts_per_s,
    }
    changes = {name: _number(name, value) for name, value in given.items() if value is not None}
    if weight is not None:
        changes["weight"] = weight
    if not changes:
        raise InvalidMessageError("tenants set: give a weight or a quota")
    with Client() as client:
        policy = client.tenants.set(
            tenant, **{**client.tenants.get(tenant).model_dump(), **changes}
        )
    _print(policy_fields(tenant, policy), as_json=as_json)


@app.command()
def show(tenant: TenantArgument, as_json: AsJson = False) -> None:
    """Show the policy that holds for a tenant, and its use of it."""
    name = tenant_name(tenant)
    with Client() as client:
        policy, policies = client.tenants.get(name), client.tenants.list()
        usage = None if name == EVERY_OTHER else client.tenants.usage(name)
    source = name if name in policies else EVERY_OTHER if EVERY_OTHER in policies else ""
    fields = {**policy_fields(name, policy), "policy_of": source or None}
    _print({**fields, **(usage_fields(usage) if usage else {})}, as_json=as_json)


@app.command("list")
def list_policies(as_json: AsJson = False) -> None:
    """List the tenants that have a policy."""
    with Client() as client:
        policies = client.tenants.list()
    rows = [policy_fields(name, policy) for name, policy in policies.items()]
    if as_json:
        for row in rows:
            print_json(row)
    else:
        print_columns(COLUMNS, [[_shown(value) for value in row.values()] for row in rows])


@app.command()
def reset(tenant: TenantArgument, as_json: AsJson = False) -> None:
    """Drop a tenant's own policy; that of '*' holds for it then."""
    with Client() as client:
        client.tenants.reset(tenant)
        policy = client.tenants.get(tenant)
    _print(policy_fields(tenant, policy), as_json=as_json)


def policy_fields(tenant: str, policy: TenantPolicy) -> dict[str, Any]:
    """Describe a tenant's policy."""
    return {"tenant": tenant, **policy.model_dump()}


def usage_fields(usage: TenantUsage) -> dict[str, Any]:
    """Describe a tenant's use of its quotas."""
    return {
        "open_images": usage.open_images,
        "open_jobs": usage.open_jobs,
        "images_left": _rounded(usage.images_left),
        "prompts_left": _rounded(usage.prompts_left),
    }


def _number(name: str, value: str) -> float | int | None:
    if value == NO_LIMIT:
        return None
    try:
        return int(value) if value.lstrip("+-").isdecimal() else float(value)
    except ValueError:
        option = name.replace("_", "-")
        raise InvalidMessageError(f"--{option}: write a number, or {NO_LIMIT}") from None


def _rounded(tokens: float | None) -> float | None:
    return None if tokens is None else round(tokens, 3)


def _shown(value: object) -> object:
    if isinstance(value, float):
        return f"{value:g}"
    return NO_LIMIT if value is None else value


def _print(fields: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(fields)
    else:
        print_fields({name: _shown(value) for name, value in fields.items()})
