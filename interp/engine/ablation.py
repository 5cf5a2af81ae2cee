"""`interp.ablate`: take one part after another out of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from interp.engine.interventions import Mean, Operation, Patch, Resample, Zero, everywhere
from interp.engine.optimal import optimal
from interp.engine.places import Positions, expand
from interp.engine.result import SweepResult
from interp.engine.sweep import engine_of
from interp.engine.sweep import run as run_sweep
from interp.errors import InterventionError, did_you_mean
from interp.models import Model
from interp.prompts import PromptSet
from interp.sites import Site
from interp.sites import resolve as resolve_sites
from interp.workers import Engine
from interp.workers.opened import threads_as_in

METHODS = ("zero", "mean", "resample", "counterfactual", "optimal")


def ablate(
    model: Model,
    prompts: PromptSet,
    sites: Iterable[Site | str] | None = None,
    *,
    method: str = "mean",
    over: str = "all",
    positions: Positions = None,
    metric: str | Callable[..., Any] = "logit_diff",
    effect: str = "total",
    freeze: str = "none",
    seed: int = 0,
    dtype: str | torch.dtype | None = None,
    devices: Sequence[str | torch.device] | None = None,
    engine: Engine | None = None,
    run: str | Path | None = None,
    progress: bool = True,
) -> SweepResult:
    """The metric on each clean prompt when one site after another is taken out.

    >>> import interp
    >>> model = interp.load("polymath")
    >>> prompts = interp.tasks.get("ioi").sample(model, n=8, seed=0)
    >>> interp.ablate(model, prompts, ["3.5", "m2"], method="zero").values.shape
    torch.Size([2, 8])

    Args:
        model: In eval mode.
        prompts: What it is run on.
        sites: Sites or their printed forms; every attention head by default. Join several with
            Joint, or "3.5+4.1", to take them out together.
        method: What takes the place of the activation. "zero"; "mean", over the tokens that `over`
            names; "resample", another prompt's of the same length; "counterfactual", that of the
            corrupt prompt; "optimal", the constant that disturbs the output least (learned).
        over: Of "mean": "all" real tokens, those at the same "position", in the same "role", or at
            the same place of the same "template".
        positions: None for all; a role, an integer (0 is the first token, -1 the last), a list of
            them for one intervention each, or "each" for every position on its own.
        metric: A name in METRICS, or a function from logits `[prompts, vocab]` at each prompt's
            last token to values `[prompts]`.
        effect: "total", or "direct": along the residual stream alone.
        freeze: "patterns" keeps all attention patterns as they were (pattern-preserving ablation).
        seed: Of "resample".
        dtype: Compute in another precision, such as "bfloat16"; the error against the model's own,
            measured on some of the sites, is in `provenance["error"]`.
        devices: Several devices that share the work, such as ["cuda:0", "cuda:1"].
        engine: Where it is computed, such as `interp.workers.Ray()`; here by default.
        run: A folder in which results are kept as they come: the same call goes on where it was
            stopped. See `interp.engine.run`. Optimal constants are learned again, to the same
            numbers.
        progress: Show a bar.

    Raises:
        SiteError: A site, role or position that does not exist.
        InterventionError: An unknown method, or interventions that change nothing.
        RunError: A folder that holds something else, or another run, or cannot be written.
        PromptError, MetricError, ModelError: What their names say.
    """
    found = expand(resolve_sites(sites, model), prompts, positions)
    if method == "optimal":
        with threads_as_in(run, engine_of(engine, devices)):  # they decide the last bits
            interventions = optimal(model, prompts, found, progress=progress)
    else:
        operation = operation_of(method, over, seed)
        interventions = everywhere(found, operation)
    return run_sweep(
        model,
        prompts,
        interventions,
        metric=metric,
        method=method,
        effect=effect,
        freeze=freeze,
        dtype=dtype,
        devices=devices,
        engine=engine,
        run=run,
        progress=progress,
        over=over if method == "mean" else None,
        seed_of_method=seed if method == "resample" else None,
    )


def operation_of(method: str, over: str, seed: int) -> Operation:
    """What a method does; raises InterventionError for one that is unknown or learned."""
    operations: dict[str, Callable[[], Operation]] = {
        "zero": Zero,
        "mean": lambda: Mean(over),
        "resample": lambda: Resample(seed),
        "counterfactual": Patch,
    }
    if method == "optimal":
        raise InterventionError("Optimal constants are learned; use interp.ablate for them.")
    if method not in operations:
        raise InterventionError(f"There is no method {method!r}: {did_you_mean(method, METHODS)}")
    return operations[method]()
