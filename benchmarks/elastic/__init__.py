"""Whether a run is one curve: on any engine, any number of ranks, through any change of them, and through kills."""
