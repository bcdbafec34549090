"""Benchmarks of the data pipeline: its order, its opening, its decoders and whole loaders."""
