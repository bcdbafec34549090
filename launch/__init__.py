"""The doors: one thin module for each command."""
