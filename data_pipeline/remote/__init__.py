"""Shards on web servers and in object stores: addresses, transfers that resume, and a cache that a node shares."""
