"""The contract as JSON Schema, for producers and consumers in other languages."""

import json
from typing import Any, Final, Literal

from pydantic import BaseModel

from labelyard.messages import Job, Result

MessageName = Literal["job", "result"]
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
MODEL_BY_NAME: Final[dict[MessageName, type[BaseModel]]] = {"job": Job, "result": Result}


def schema(message: MessageName) -> dict[str, Any]:
    """Describe a message: a job as it must be written, a result as it will be read."""
    model = MODEL_BY_NAME[message]
    mode: Literal["validation", "serialization"] = (
        "validation" if message == "job" else "serialization"
    )
    return {"$schema": DIALECT, **model.model_json_schema(mode=mode)}


def schema_text(message: MessageName) -> str:
    """Write the schema as it is kept in ``docs/``."""
    return json.dumps(schema(message), indent=2, ensure_ascii=False) + "\n"
