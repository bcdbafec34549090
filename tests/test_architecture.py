"""The layers: imports go down only, and what is kept in one place stays there. Nothing is run, only read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# package → the packages that it may import.
MAY_IMPORT = {
    "models": {"models"},
    "data_pipeline": {"data_pipeline"},
    "trainer": {"trainer", "models", "data_pipeline"},
    "configs": {"configs", "trainer", "models", "data_pipeline"},
    "launch": {"launch", "configs", "trainer", "models", "data_pipeline"},
}
PACKAGES = {*MAY_IMPORT, "tests", "benchmarks"}

# module (and all below it) → the only places that may import it.
ONLY_IN = {
    "hydra": ("configs/", "launch/"),
    "omegaconf": ("configs/", "launch/"),
    "torch.distributed.fsdp": ("trainer/engines/fsdp.py",),
    "deepspeed": ("trainer/engines/zero.py",),
}
NAMES_ONLY_IN = {
    **dict.fromkeys(
        ("FSDP", "FSDPModule", "FullyShardedDataParallel", "fully_shard"), ("trainer/engines/fsdp.py",)
    ),
    "deepspeed": ("trainer/engines/zero.py",),
}
NOT_IN_MODELS = ("torch.distributed", "os", "pathlib", "io", "subprocess")
MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION = 300, 40


def violations(path: str, source: str) -> list[str]:
    """What the file `path` (relative to the root) does that it must not."""
    tree = ast.parse(source)
    found = [*of_imports(path, tree), *of_names(path, tree), *of_size(path, source, tree)]
    if Path(path).name in ("utils.py", "util.py", "helpers.py"):
        found.append("a helper lives with its noun, not in a file of helpers")
    return [f"{path}: {what}" for what in found]


def of_imports(path: str, tree: ast.Module) -> Iterator[str]:
    package = path.split("/")[0]
    for module in imported(tree):
        top = module.split(".")[0]
        if top in PACKAGES and top not in MAY_IMPORT[package]:
            yield f"{package} must not import {module}"
        for only, places in ONLY_IN.items():
            if within(module, only) and not path.startswith(places):
                yield f"only {' and '.join(places)} may import {module}"
        if package == "models" and any(within(module, barred) for barred in NOT_IN_MODELS):
            yield f"models must not import {module}"


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module imported anywhere in the file; `from a import b` may mean a or a.b, so both are told."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            yield prefix
            yield from (f"{prefix}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (argument.value for argument in node.args if isinstance(argument, ast.Constant))


def within(module: str, package: str) -> bool:
    return f"{module}.".startswith(f"{package}.")


def of_names(path: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        name = getattr(node, "id", getattr(node, "attr", getattr(node, "name", None)))
        places = NAMES_ONLY_IN.get(name) if isinstance(name, str) else None
        if places and not path.startswith(places):
            yield f"only {' and '.join(places)} may name {name}"
        if isinstance(node, ast.ImportFrom) and node.level:
            yield "imports are written in full, from the root"


def of_size(path: str, source: str, tree: ast.Module) -> Iterator[str]:
    lines = len(source.splitlines())
    if lines > MOST_LINES_OF_A_FILE:
        yield f"{lines} lines, at most {MOST_LINES_OF_A_FILE}"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            if length > MOST_LINES_OF_A_FUNCTION:
                yield f"{node.name} has {length} lines, at most {MOST_LINES_OF_A_FUNCTION}"


def sources() -> list[Path]:
    return [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


def test_there_is_something_to_check():
    assert {path.relative_to(ROOT).parts[0] for path in sources()} == set(MAY_IMPORT)


def test_the_code_keeps_to_its_layers_and_sizes():
    found = [
        what for path in sources() for what in violations(str(path.relative_to(ROOT)), path.read_text("utf-8"))
    ]
    assert not found, "\n".join(found)


def test_there_is_no_file_of_helpers_anywhere():
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("util*.py")]
    assert not found


PLANTED = {
    "upwards": ("models/a.py", "import trainer"),
    "upwards by from": ("trainer/a.py", "from configs.schema import register"),
    "upwards in a function": ("models/a.py", "def f():\n    from launch import door"),
    "upwards while type checking": ("data_pipeline/a.py", "if TYPE_CHECKING:\n    from trainer import run"),
    "upwards by name": ("trainer/a.py", "importlib.import_module('launch.train')"),
    "sideways": ("models/a.py", "from data_pipeline.stream import Batch"),
    "sideways back": ("data_pipeline/a.py", "import models.noise as noise"),
    "from the tests": ("trainer/a.py", "from tests.oracles import Mixture"),
    "relative": ("models/networks/a.py", "from ..noise import Noise"),
    "hydra": ("trainer/a.py", "import hydra"),
    "omegaconf": ("models/a.py", "from omegaconf import DictConfig"),
    "processes in models": ("models/networks/a.py", "import torch.distributed as dist"),
    "processes in models by from": ("models/a.py", "from torch import distributed"),
    "files in models": ("models/a.py", "from pathlib import Path"),
    "environment in models": ("models/a.py", "import os.path"),
    "fsdp": ("trainer/engines/local.py", "from torch.distributed.fsdp import FSDPModule"),
    "fsdp by attribute": ("trainer/engines/local.py", "x = torch.distributed.fsdp.fully_shard(x)"),
    "fsdp by alias": ("trainer/engines/local.py", "from somewhere import fully_shard as shard"),
    "deepspeed": ("trainer/engines/local.py", "import deepspeed"),
    "helpers": ("trainer/utils.py", ""),
    "a long file": ("trainer/a.py", "x = 1\n" * 301),
    "a long function": ("trainer/a.py", "def f():\n" + "    x = 1\n" * 40),
}


@pytest.mark.parametrize(("path", "source"), PLANTED.values(), ids=PLANTED)
def test_a_planted_violation_is_caught(path, source):
    assert violations(path, source)


ALLOWED = {
    "down": ("launch/a.py", "from configs.schema import x\nfrom trainer.loop import train\nimport models.noise"),
    "hydra above": ("configs/a.py", "import hydra\nfrom omegaconf import DictConfig"),
    "its own place": ("trainer/engines/fsdp.py", "from torch.distributed.fsdp import fully_shard\nfully_shard(x)"),
    "a package that begins alike": ("models/a.py", "import osmosis\nfrom torch import nn"),
    "in words": ("trainer/engines/local.py", '"""Unlike FSDP and deepspeed, this engine is local."""'),
    "a file of the most lines": ("trainer/a.py", "x = 1\n" * 300),
    "a function of the most lines": ("trainer/a.py", "def f():\n" + "    x = 1\n" * 39),
}


@pytest.mark.parametrize(("path", "source"), ALLOWED.values(), ids=ALLOWED)
def test_what_is_allowed_is_not_caught(path, source):
    assert violations(path, source) == []
