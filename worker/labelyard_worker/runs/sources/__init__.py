"""Sources of runs: manifests and listings, as planned lines in bounded memory."""
