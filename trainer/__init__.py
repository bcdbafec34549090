"""Time: how batches become weights, and how weights are looked at on the way."""
