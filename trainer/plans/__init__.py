"""Plans: what a run would take on many ranks, worked out without them."""
