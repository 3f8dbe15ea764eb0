"""What a GPU machine runs: jobs in, scores out."""
