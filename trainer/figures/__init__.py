"""The papers' figures, each drawn for any run that can show it."""
