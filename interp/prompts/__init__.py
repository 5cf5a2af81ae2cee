"""Prompts with their answers, counterfactuals and roles."""

from interp.prompts.prompt_set import PromptSet

__all__ = ["PromptSet"]
