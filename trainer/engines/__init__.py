"""Engines: where the weights live and how a step is made. `local` is the spec for the rest."""
