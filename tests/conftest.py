"""For the whole session: the shapes that `models` states are enforced, and every machine tests the same."""

from __future__ import annotations

import sys

import torch
from hypothesis import settings
from jaxtyping import install_import_hook

assert "models" not in sys.modules, "models was imported before its shape annotations could be enforced"
install_import_hook("models", "beartype.beartype")

# The tensors of the tests are small: more threads cost more than they give, and would share the cores of others.
torch.set_num_threads(1)

# The same examples on every machine and no folder of past failures: a red test is red for everyone.
settings.register_profile("suite", derandomize=True, database=None, deadline=None, max_examples=50)
settings.load_profile("suite")
