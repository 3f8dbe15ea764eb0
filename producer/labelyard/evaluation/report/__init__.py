"""Page of an evaluation for people: figures, curves, confusions and suspicious labels."""
