"""Interventions: what the model does when a part of it is changed."""

from interp.engine.ablation import ablate
from interp.engine.attribution import attribute
from interp.engine.edges import patch_edges
from interp.engine.explain import Plan, explain
from interp.engine.explain_edges import AttributionPlan, explain_attribution, explain_edges
from interp.engine.interventions import (
    Add,
    Edit,
    Intervention,
    Mean,
    Operation,
    Patch,
    Resample,
    Scale,
    Set,
    Zero,
    everywhere,
)
from interp.engine.metrics import METRICS
from interp.engine.naive import naive
from interp.engine.patching import patch
from interp.engine.paths import patch_paths
from interp.engine.result import SweepResult
from interp.engine.screening import screen
from interp.engine.sweep import run

__all__ = [
    "METRICS",
    "Add",
    "AttributionPlan",
    "Edit",
    "Intervention",
    "Mean",
    "Operation",
    "Patch",
    "Plan",
    "Resample",
    "Scale",
    "Set",
    "SweepResult",
    "Zero",
    "ablate",
    "attribute",
    "everywhere",
    "explain",
    "explain_attribution",
    "explain_edges",
    "naive",
    "patch",
    "patch_edges",
    "patch_paths",
    "run",
    "screen",
]
