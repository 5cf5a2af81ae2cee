"""`interp.patch`: put activations of one run into another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from interp.activations import Activations
from interp.engine.edges import patch_edges
from interp.engine.interventions import Patch, everywhere
from interp.engine.places import Positions, expand
from interp.engine.result import SweepResult
from interp.engine.sweep import engine_of
from interp.engine.sweep import run as run_sweep
from interp.errors import InterventionError
from interp.models import Model
from interp.prompts import PromptSet
from interp.sites import Edge, Site
from interp.sites import resolve as resolve_sites
from interp.workers import Engine


def patch(
    model: Model,
    prompts: PromptSet,
    sites: Iterable[Site | str] | None = None,
    *,
    source: PromptSet | Activations | None = None,
    direction: str | None = None,
    positions: Positions = None,
    metric: str | Callable[..., Any] = "logit_diff",
    effect: str = "total",
    freeze: str = "none",
    dtype: str | torch.dtype | None = None,
    devices: Sequence[str | torch.device] | None = None,
    engine: Engine | None = None,
    run: str | Path | None = None,
    progress: bool = True,
) -> SweepResult:
    """The metric when the activation of one site after another comes from another run.

    >>> import interp
    >>> model = interp.load("polymath")
    >>> prompts = interp.tasks.get("ioi").sample(model, n=8, seed=0)
    >>> sweep = interp.patch(model, prompts, interp.sites.resid(model), positions=["S2", "END"])
    >>> sweep.values.shape
    torch.Size([12, 8])

    Args:
        model: In eval mode.
        prompts: What it is run on.
        sites: Sites or their printed forms; every attention head by default. Edges, such as
            "5.1->7.2.q" or `interp.sites.edges(model)`, have a road of their own, in the direction
            "noise" by default, at all positions and with total effects.
        source: Where the activations come from: None for the other prompt of each pair; or other
            prompts, or captured activations, that are aligned with these.
        direction: Of pairs. "denoise" (the default) runs the corrupt prompts and puts clean
            activations into them, which shows what suffices; "noise" the reverse, which shows what
            is needed. A `source` goes into the clean run: "noise".
        positions: None for all; a role, an integer (0 is the first token, -1 the last), a list of
            them for one intervention each, or "each" for every position on its own.
        metric: A name in METRICS, or a function from logits `[prompts, vocab]` at each prompt's
            last token to values `[prompts]`.
        effect: "total", or "direct": along the residual stream alone.
        freeze: "patterns" keeps all attention patterns as they were.
        dtype: Compute in another precision; see `interp.ablate`.
        devices: Several devices that share the work, such as ["cuda:0", "cuda:1"].
        engine: Where it is computed, such as `interp.workers.Ray()`; here by default.
        run: A folder in which results are kept as they come; see `interp.ablate`.
        progress: Show a bar.

    Raises:
        SiteError: A site, role or position that does not exist.
        InterventionError: A source of another model or shape, or one that changes nothing.
        RunError: A folder that holds something else, or another run, or cannot be written.
        PromptError, MetricError, ModelError: What their names say.
    """
    if source is not None and direction == "denoise":
        raise InterventionError(
            "A source is put into the clean run, which is direction='noise'; leave direction out, "
            "or swap clean and corrupt prompts."
        )
    found = expand(resolve_sites(sites, model), prompts, positions)
    if any(isinstance(site, Edge) for site in found):
        edges = _edges_alone(found, source)
        if (effect, freeze, dtype) != ("total", "none", None):
            raise InterventionError(
                "Edges are patched with total effects, attention as it comes, in the model's own "
                "precision; leave effect, freeze and dtype out."
            )
        return patch_edges(
            model,
            prompts,
            edges,
            metric=metric,
            direction=direction or "noise",
            engine=engine_of(engine, devices),
            run=run,
            progress=progress,
        )
    operation = Patch("corrupt" if source is None else source)
    return run_sweep(
        model,
        prompts,
        everywhere(found, operation),
        metric=metric,
        method="patch",
        direction=direction or ("denoise" if source is None else "noise"),
        effect=effect,
        freeze=freeze,
        dtype=dtype,
        devices=devices,
        engine=engine,
        run=run,
        progress=progress,
    )


def _edges_alone(sites: Sequence[Site], source: PromptSet | Activations | None) -> list[Edge]:
    """The sites, all of them edges. Raises InterventionError for others, and for a source."""
    edges = [site for site in sites if isinstance(site, Edge)]
    if len(edges) < len(sites) or source is not None:
        other = next((str(site) for site in sites if not isinstance(site, Edge)), "a source")
        raise InterventionError(
            f"Edges are patched from the counterfactuals and on their own, and {other} is given "
            "beside them; make two calls."
        )
    return edges
