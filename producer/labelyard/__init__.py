"""What a backend installs to submit jobs and read their results."""
