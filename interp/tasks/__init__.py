"""Behaviours to study, in words that any tokenizer can express."""

from interp.tasks.registry import get, names
from interp.tasks.task import Example, Split, Task

__all__ = ["Example", "Split", "Task", "get", "names"]
