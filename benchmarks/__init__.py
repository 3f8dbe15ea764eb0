"""Side-by-side measurements of labelyard and of what it stands against."""
