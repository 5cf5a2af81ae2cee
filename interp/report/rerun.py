"""The Python that makes a result again, as far as its provenance tells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from interp.tasks.words import relations


def rerun(known: Mapping[str, Any], *calls: str) -> str:
    """What was typed in the shell; else the line that loads the model, and these calls.

    >>> print(rerun({"model": "polymath (untrained, seed 1)"}, "interp.heads.scan(model)"))
    model = interp.load('polymath').untrained(seed=1)
    interp.heads.scan(model)
    """
    if known.get("command"):
        return str(known["command"])
    name, seed = _untrained(str(known.get("model", "")))
    dtype = known.get("dtype", "float32")
    how = "" if dtype == "float32" else f", dtype={dtype!r}"
    fresh = "" if seed is None else f".untrained(seed={seed})"
    return "\n".join([f"model = interp.load({name!r}{how}){fresh}", *calls])


def arguments(**given: Any) -> str:
    """Keyword arguments as they are typed; None is left out.

    >>> arguments(n=5, layer=None, how="set")
    "n=5, how='set'"
    """
    return ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)


def sampled(known: Mapping[str, Any]) -> str:
    """The line that draws the prompts, or one that says that they were the caller's."""
    notes, n = known.get("notes", {}), known.get("n")
    if "seed" not in notes or "split" not in notes:
        return f"prompts = ...  # {n} prompts, hash {known.get('prompts_hash')}"
    how = arguments(n=n, seed=notes["seed"], split=notes["split"])
    return (
        f"prompts = interp.tasks.get({known.get('task')!r}).sample(model, {how})"
        f"  # hash {known.get('prompts_hash')}"
    )


def pairs_of(relation: str) -> str:
    """A relation as an argument: its name, or the name of a variable where pairs were given.

    >>> pairs_of("antonym"), pairs_of("my own")
    ("'antonym'", 'pairs')
    """
    return repr(relation) if relation in relations() else "pairs"


def function_vector_of(relation: str, known: Mapping[str, Any]) -> str:
    """The call that makes a function vector again, from its options in a provenance."""
    how = f", {arguments(**known)}" if known else ""
    return f"interp.vectors.function_vector(model, {pairs_of(relation)}{how})"


def template_of(known: Mapping[str, Any]) -> str:
    """The argument `template`, from its fields in a provenance; nothing for the usual one."""
    fields = known.get("template")
    usual = {"demo": "Q: {x}\nA: {y}\n\n", "query": "Q: {x}\nA:", "space": True}
    if fields is None or fields == usual:
        return ""
    return f", template=interp.vectors.Template({arguments(**fields)})"


def _untrained(model: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(.*) \(untrained, seed (\d+)\)", model, re.DOTALL)
    return (found[1], int(found[2])) if found else (model, None)
