"""Find, test and compare the mechanisms inside transformer language models.

```python
import interp

model = interp.load("polymath")
prompts = interp.tasks.get("ioi").sample(model, n=64)
acts = interp.capture(model, prompts, ["blocks.*.attn.hook_z"], positions="END")
sweep = interp.ablate(model, prompts, method="mean")
atlas = interp.heads.scan(model)
```
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp import (
        circuits,
        consistency,
        engine,
        errors,
        generation,
        grokking,
        heads,
        lens,
        models,
        probes,
        report,
        results,
        sites,
        tasks,
        training,
        vectors,
        workers,
        zoo,
    )
    from interp.activations import Activations, capture
    from interp.engine import SweepResult, ablate, attribute, patch
    from interp.models import Model, load
    from interp.prompts import PromptSet

__version__ = "0.1.0"

__all__ = [
    "Activations",
    "Model",
    "PromptSet",
    "SweepResult",
    "__version__",
    "ablate",
    "attribute",
    "capture",
    "circuits",
    "consistency",
    "engine",
    "errors",
    "generation",
    "grokking",
    "heads",
    "lens",
    "load",
    "models",
    "patch",
    "probes",
    "report",
    "results",
    "sites",
    "tasks",
    "training",
    "vectors",
    "workers",
    "zoo",
]

_HOME = {
    "Activations": "interp.activations",
    "capture": "interp.activations",
    "Model": "interp.models",
    "load": "interp.models",
    "PromptSet": "interp.prompts",
    "SweepResult": "interp.engine",
    "ablate": "interp.engine",
    "attribute": "interp.engine",
    "patch": "interp.engine",
}
"""Where the names live that are not packages of their own."""


def __getattr__(name: str) -> Any:
    """Import on first use: torch takes seconds, and `interp --help` should not wait for it."""
    if name not in __all__:
        raise AttributeError(f"module 'interp' has no attribute {name!r}")
    value = (
        getattr(import_module(_HOME[name]), name)
        if name in _HOME
        else import_module(f"interp.{name}")
    )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
