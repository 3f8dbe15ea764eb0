"""The variables that tests run under: none of the caller's, ours for the servers."""

import os
from collections.abc import MutableMapping

from labelyard_worker.local.servers import SeaweedServer

CALLERS_PREFIXES = ("LABELYARD_", "AWS_", "HF_", "OTEL_", "TRANSFORMERS_")
FIXED_VARIABLES = {
    "XDG_STATE_HOME": os.devnull,  # no local stack is found, and none of a test is
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def isolate(environ: MutableMapping[str, str]) -> None:
    """Remove the caller's variables of labelyard, AWS, traces and model hubs; set those that tests need.

    Processes that tests start may write bytecode: each would compile labelyard again.
    """
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for name in [name for name in environ if name.startswith(CALLERS_PREFIXES)]:
        del environ[name]
    environ.update(FIXED_VARIABLES)


def service_variables(
    seaweed: SeaweedServer, *, broker_url: str, ledger_url: str
) -> dict[str, str]:
    """Return the variables that lead producers and workers to the servers."""
    return {
        "LABELYARD_BROKER_URL": broker_url,
        "LABELYARD_LEDGER_URL": ledger_url,
        "LABELYARD_S3_ENDPOINT_URL": seaweed.endpoint_url,
        "LABELYARD_S3_REGION": seaweed.region,
        "AWS_ACCESS_KEY_ID": seaweed.access_key_id,
        "AWS_SECRET_ACCESS_KEY": seaweed.secret_access_key,
    }
