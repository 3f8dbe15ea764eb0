"""Types of the contract's fields, each with the range in which its values are harmless.

JSON types are not converted into one another: ``"5"`` is not a number, ``1`` is not true.
"""

import re
from datetime import UTC, datetime
from numbers import Real
from typing import Annotated, Any, Final

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, StrictBool

from labelyard.buckets import NAMING_RULE, is_bucket_name

# Below this a logit divided by the temperature could exceed what a float holds.
MIN_TEMPERATURE: Final = 1e-6
MAX_TEMPERATURE: Final = 1000.0
#: Characters of the text beside a picture.
MAX_TITLE: Final = 2048
MAX_LABELS: Final = 10_000
MAX_INLINE_LABELS: Final = 1_000
MAX_TRACE_ENTRIES: Final = 20
MAX_KEY_BYTES: Final = 1024  # of an object, in S3

# C0 but tab and line breaks, DEL, C1: a terminal or a parser of logs would act on them.
_CONTROL: Final = r"\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"
CONTROL_CHARACTERS: Final = re.compile(f"[{_CONTROL}]")
TEXT_PATTERN: Final = rf"^[^{_CONTROL}]*$"
TEMPLATE_PATTERN: Final = rf"^[^{{}}{_CONTROL}]*\{{\}}[^{{}}{_CONTROL}]*$"
# What may stand in an HTTP header, which is where these go.
HEADER_PATTERN: Final = r"^[\x20-\x7e]+$"


def _as_number(value: Any) -> Any:
    """Refuse values that pydantic would convert: text, bool, and numbers slow to convert."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError("write a number")  # noqa: TRY004 - pydantic wants a ValueError
    return value


def _as_instant(value: Any) -> Any:
    """Refuse numbers: pydantic would guess whether they are seconds or milliseconds."""
    is_date_text = isinstance(value, str) and value[4:5] == "-"
    if not isinstance(value, datetime) and not is_date_text:
        raise ValueError("write a date and time with an offset, such as 2030-01-01T12:00:00Z")
    return value


def _is_instant_in_utc(value: datetime) -> datetime:
    """Refuse an instant that is outside the years 1 to 9999 once its offset is subtracted."""
    try:
        value.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("write a time in the years 1 to 9999, UTC") from error
    return value


def _is_object_uri(uri: str) -> str:
    """Refuse an address that could name another server, bucket or key than it seems to."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not is_bucket_name(bucket):
        raise ValueError(NAMING_RULE)
    if len(key.encode()) > MAX_KEY_BYTES:
        raise ValueError(f"a key has at most {MAX_KEY_BYTES} bytes")
    if {".", ".."} & set(key.split("/")):
        raise ValueError("the segments . and .. in a key may be resolved by a server on the way")
    return uri


JobId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")]
Tenant = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
StreamName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,128}$")]
Tag = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]
LabelSetDigest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
AliasName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}@[a-z0-9][a-z0-9._-]{0,63}$")]
LabelSetRef = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}@sha256:[0-9a-f]{64}$")]

Name = Annotated[str, Field(min_length=1, max_length=256, pattern=TEXT_PATTERN)]
Title = Annotated[str, Field(min_length=1, max_length=MAX_TITLE)]
Prompt = Annotated[str, Field(min_length=1, max_length=1000, pattern=TEXT_PATTERN)]
Template = Annotated[str, Field(max_length=1000, pattern=TEMPLATE_PATTERN)]
TraceKey = Annotated[str, Field(min_length=1, max_length=128, pattern=TEXT_PATTERN)]
TraceValue = Annotated[str, Field(max_length=2048, pattern=TEXT_PATTERN)]

ImageUri = Annotated[str, Field(min_length=1, max_length=2048)]
VersionId = Annotated[str, Field(min_length=1, max_length=1024, pattern=HEADER_PATTERN)]
ETag = Annotated[str, Field(min_length=1, max_length=256, pattern=HEADER_PATTERN)]
ObjectUri = Annotated[
    str,
    Field(pattern=rf"^s3://[^/{_CONTROL}]+/[^{_CONTROL}\t\n\r]+$", max_length=2048),
    AfterValidator(_is_object_uri),
]

AS_NUMBER: Final = BeforeValidator(_as_number)
Threshold = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), AS_NUMBER]
Temperature = Annotated[
    float, Field(ge=MIN_TEMPERATURE, le=MAX_TEMPERATURE, allow_inf_nan=False), AS_NUMBER
]
TopK = Annotated[int, Field(ge=1, le=MAX_LABELS), AS_NUMBER]
Switch = StrictBool
Instant = Annotated[AwareDatetime, AfterValidator(_is_instant_in_utc), BeforeValidator(_as_instant)]
