"""Pure mathematics and networks: no files, no processes, no choice of device."""
