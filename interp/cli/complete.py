"""What Tab offers in the place of an argument or of the value of an option."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from interp.cli import names

Complete = Callable[[str], list[str]]


def _one_of(known: Iterable[str]) -> Complete:
    def complete(incomplete: str) -> list[str]:
        return [name for name in known if name.startswith(incomplete)]

    return complete


def models(incomplete: str) -> list[str]:
    """Embedded models; where none fits, the shell offers files."""
    return [name for name in names.models() if name.startswith(incomplete)]


def tasks(incomplete: str) -> list[str]:
    """Tasks and relations."""
    return [name for name in (*names.TASKS, *names.relations()) if name.startswith(incomplete)]


def kinds(incomplete: str) -> list[str]:
    """Kinds of heads, the last of several with commas between."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{kind}" for kind in names.KINDS if kind.startswith(last)]


metrics = _one_of(names.METRICS)
ablations = _one_of(names.ABLATIONS)
selections = _one_of(names.SELECTIONS)
streams = _one_of(names.STREAMS)
statistics = _one_of(names.STATISTICS)
recipes = _one_of(names.RECIPES)
facts = _one_of(names.FACTS)
circuit_methods = _one_of(names.CIRCUIT_METHODS)
sweep_methods = _one_of(names.SWEEP_METHODS)
vector_methods = _one_of(names.VECTOR_METHODS)
reasoning = _one_of(("coin_flip", "ontology"))
engines = _one_of(names.ENGINES)
devices = _one_of(("cpu", "cuda", "mps"))
dtypes = _one_of(("float32", "bfloat16", "float16", "float64"))
