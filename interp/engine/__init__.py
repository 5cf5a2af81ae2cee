"""Interventions: what the model does when a part of it is changed."""

from interp.engine.metrics import METRICS
from interp.engine.naive import naive_ablate
from interp.engine.result import SweepResult

__all__ = ["METRICS", "SweepResult", "naive_ablate"]
