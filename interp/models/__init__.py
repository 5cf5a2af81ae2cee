"""Load models: their weights, tokenizer, hooks and sizes."""

from interp.models.check import CheckReport
from interp.models.embedded import embedded_names, revisions
from interp.models.geometry import Geometry
from interp.models.load import load
from interp.models.model import Model

__all__ = ["CheckReport", "Geometry", "Model", "embedded_names", "load", "revisions"]
