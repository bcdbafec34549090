"""Whether a run is one curve: on any engine and number of ranks, through any change of them, through kills."""
