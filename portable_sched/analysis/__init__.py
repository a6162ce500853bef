"""What the results of a run mean: pure functions from what is known to data."""
