"""Side-by-side measurements of labelyard and other ways to serve the same model."""
