"""Shards to batches, on the CPU: pack a source into tar shards, stream them in an order made of integers."""
