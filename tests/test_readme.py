"""The README says what is there: its tree, its commands, its pictures."""

from __future__ import annotations

import re
from pathlib import Path

from docs.tree import with_tree

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_tree_is_that_of_the_files():
    assert with_tree(README) == README, "run `python -m docs.tree`"


def test_every_make_target_exists():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)", README)) <= targets


def test_every_link_and_picture_is_a_file():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link


def test_every_door_that_is_named_can_be_opened():
    for door in re.findall(r"-m launch\.(\w+)", README):
        assert (ROOT / "launch" / f"{door}.py").exists(), door
