"""A load run that is watched: every panel moves, the backlog agrees, and scraping costs little."""
