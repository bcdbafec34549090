"""The README's tree, a line a file, from the files' own first lines: `python -m docs.tree` writes it anew."""

from __future__ import annotations

import subprocess
from pathlib import Path

README = Path("README.md")
BEGIN, END = "<!-- tree: written by `python -m docs.tree` -->\n```text\n", "```\n<!-- end of tree -->"
FOLDERS = ("models", "data_pipeline", "trainer", "configs", "launch", "benchmarks")


def tree() -> str:
    """A line for each python file that git tracks, below a line for its folder."""
    listed = subprocess.run(
        ["git", "ls-files", *FOLDERS], capture_output=True, text=True, check=True
    ).stdout.split()
    files = [Path(name) for name in listed if name.endswith(".py")]
    folders = sorted({file.parent for file in files}, key=lambda folder: (FOLDERS.index(folder.parts[0]), folder))
    lines = []
    for folder in folders:
        lines.append(f"{folder}/")
        inside = [file for file in files if file.parent == folder and file.name != "__init__.py"]
        lines += [f"  {file.name:<20} {summary(file)}" for file in inside]
    return "\n".join(lines) + "\n"


def summary(file: Path) -> str:
    """The first line of a file's docstring."""
    return file.read_text().splitlines()[0].strip('"').rstrip(".:")


def with_tree(text: str) -> str:
    """The README's text with the tree as it is now."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + tree() + END + rest.split(END)[1]


if __name__ == "__main__":
    README.write_text(with_tree(README.read_text()))
