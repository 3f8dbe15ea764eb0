"""Kinds of findings about object storage."""

from typing import Final

from labelyard.doctor.report import FindingKind, Severity

S3_REACHED: Final = FindingKind(
    "s3_reached", "storage", Severity.OK, "The S3 server at {place} answers."
)
S3_BUCKET_USABLE: Final = FindingKind(
    "s3_bucket_usable", "storage", Severity.OK, "The bucket {bucket} can be {action}."
)
S3_NOT_CONFIGURED: Final = FindingKind(
    "s3_not_configured",
    "storage",
    Severity.OK,
    "No S3 server is configured here: local files cannot be uploaded, jobs with addresses can be "
    "submitted.",
)
S3_UPLOAD_BUCKET_NEW: Final = FindingKind(
    "s3_upload_bucket_new",
    "storage",
    Severity.ADVICE,
    "The bucket {bucket} for uploads does not exist; the first upload makes it.",
    "Make it, or set LABELYARD_UPLOAD_BUCKET to a bucket that exists, if this user may not make "
    "buckets.",
)
S3_LIBRARIES_MISSING: Final = FindingKind(
    "s3_libraries_missing",
    "storage",
    Severity.UNCHECKED,
    "Object storage could not be checked: boto3 is not installed ({why}).",
    "Run pip install 'labelyard[cli]'.",
)
S3_CONFIG_REFUSED: Final = FindingKind(
    "s3_config_refused",
    "storage",
    Severity.SERIOUS,
    "The settings of S3 cannot be used: {why}.",
    "Correct LABELYARD_S3_ENDPOINT_URL (http://host:port), AWS_PROFILE, or AWS's files.",
)
S3_UNREACHABLE: Final = FindingKind(
    "s3_unreachable",
    "storage",
    Severity.SERIOUS,
    "The S3 server at {place} gave no usable answer: {why}.",
    "Start it, open the way to it, or set LABELYARD_S3_ENDPOINT_URL (or AWS_ENDPOINT_URL) to its "
    "address.",
)
S3_CREDENTIALS_MISSING: Final = FindingKind(
    "s3_credentials_missing",
    "storage",
    Severity.WARNING,
    "There are no S3 credentials: only public buckets can be read, and nothing can be written.",
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine a role.",
)
S3_CREDENTIALS_REFUSED: Final = FindingKind(
    "s3_credentials_refused",
    "storage",
    Severity.SERIOUS,
    "The S3 server at {place} refuses the credentials: {why}.",
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN) to valid ones, and "
    "LABELYARD_S3_REGION to the region of the buckets.",
)
S3_BUCKET_NAME_BAD: Final = FindingKind(
    "s3_bucket_name_bad",
    "storage",
    Severity.SERIOUS,
    "{bucket!r} cannot be the name of a bucket: {rule}.",
    "Correct LABELYARD_UPLOAD_BUCKET, LABELYARD_ALLOWED_BUCKETS or LABELYARD_RESULT_BUCKETS.",
)
S3_BUCKET_MISSING: Final = FindingKind(
    "s3_bucket_missing",
    "storage",
    Severity.SERIOUS,
    "The bucket {bucket} in {setting} does not exist.",
    "Make it, or correct {setting}.",
)
S3_LIST_REFUSED: Final = FindingKind(
    "s3_list_refused",
    "storage",
    Severity.UNCHECKED,
    "Whether pictures of the bucket {bucket} can be read could not be checked: it may not be "
    "listed, and S3 then answers AccessDenied for a missing key, too.",
    "Grant s3:ListBucket besides s3:GetObject, so that a wrong key is reported as "
    "image_not_found; or submit one picture of it.",
)
S3_READ_REFUSED: Final = FindingKind(
    "s3_read_refused",
    "storage",
    Severity.SERIOUS,
    "Pictures of the bucket {bucket} may not be read (AccessDenied).",
    "Grant s3:GetObject on it, or remove it from LABELYARD_ALLOWED_BUCKETS.",
)
S3_WRITE_REFUSED: Final = FindingKind(
    "s3_write_refused",
    "storage",
    Severity.SERIOUS,
    "Nothing can be written to the bucket {bucket}: {why}.",
    "Grant s3:PutObject on it, or set {setting} to another bucket.",
)
KINDS: Final = (
    S3_REACHED,
    S3_BUCKET_USABLE,
    S3_NOT_CONFIGURED,
    S3_UPLOAD_BUCKET_NEW,
    S3_LIBRARIES_MISSING,
    S3_CONFIG_REFUSED,
    S3_UNREACHABLE,
    S3_CREDENTIALS_MISSING,
    S3_CREDENTIALS_REFUSED,
    S3_BUCKET_NAME_BAD,
    S3_BUCKET_MISSING,
    S3_LIST_REFUSED,
    S3_READ_REFUSED,
    S3_WRITE_REFUSED,
)
