"""Speed as ratios: ours and a peer's, turn by turn in one run. `make bench` runs them all."""
