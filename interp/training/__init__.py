"""Training the embedded models, and measuring what they learned."""

from interp.training.loop import train
from interp.training.recipes import RECIPES, Recipe

__all__ = ["RECIPES", "Recipe", "train"]
