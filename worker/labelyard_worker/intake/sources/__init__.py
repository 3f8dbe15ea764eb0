"""Where image files come from: S3-compatible storage, and https."""
