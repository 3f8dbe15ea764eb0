"""Output files of runs: results, errors, embeddings and summaries."""
