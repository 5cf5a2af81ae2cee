"""Prompts with their answers, counterfactuals and roles."""

from interp.prompts.ordinary import ordinary_tokens
from interp.prompts.prompt_set import PromptSet

__all__ = ["PromptSet", "ordinary_tokens"]
