"""Read activations out of a model, into memory or into a folder."""

from interp.activations.activations import Activations
from interp.activations.run import capture

__all__ = ["Activations", "capture"]
