"""Random instances of any class that a file may hold, made from its type hints; and their equality.

The tensors of a class agree in their axes, as far as its hints name them alike.
"""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
import torch
from hypothesis import strategies as st
from torch import Tensor

from interp.circuits import Circuit
from interp.circuits.shape import Shape
from interp.consistency.questions import Question
from interp.heads.kinds import KINDS
from interp.heads.score import Score
from interp.prompts import PromptSet
from interp.saved.registry import fields_of
from interp.sites import Site, parse
from interp.vectors.in_context.graph_walks import Graph
from interp.vectors.vector import Vector

TEXTS = st.text(max_size=8) | st.sampled_from(["<script>", "5.1", "nan", "a.b", "\ud800", ""])
NUMBERS = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 5e-324])
WHOLE = st.integers(-(2**70), 2**70)
SITES = st.sampled_from(
    [parse(s) for s in ("5.1", "m3", "r4.pre", "0.0.q", "input->1.2.v", "5.1@END", "1.0+m2", "a0")]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | WHOLE | NUMBERS | TEXTS | SITES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(TEXTS | st.integers() | st.tuples(TEXTS, TEXTS), inner, max_size=3)
    ),
    max_leaves=6,
)
FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INTS = (torch.int64, torch.int32, torch.int16, torch.int8)
Draw = Callable[[st.SearchStrategy[Any]], Any]


@st.composite
def instances(draw: Draw, cls: type[Any], sizes: dict[str, int] | None = None) -> Any:
    """Any instance of a class."""
    if cls in SPECIAL:
        return draw(SPECIAL[cls]())
    hints, sizes = get_type_hints(cls), {}
    return cls(**{field.name: draw(values(hints[field.name], sizes)) for field in fields_of(cls)})


def values(hint: Any, sizes: dict[str, int]) -> st.SearchStrategy[Any]:
    """Anything that a hint allows; `sizes` are the axes that are known so far."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return ANYTHING
    if origin in (Union, types.UnionType):
        return st.one_of(*(values(each, sizes) for each in inner))
    if origin is Literal:
        return st.sampled_from(inner)
    if origin is tuple and inner[1:] == (...,):
        return st.lists(values(inner[0], sizes), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*(values(each, sizes) for each in inner))
    if origin is frozenset:
        return st.frozensets(values(inner[0], sizes), max_size=3)
    if origin is list:
        return st.lists(values(inner[0], sizes), max_size=3)
    if origin is not None and issubclass(origin, Mapping):
        return st.dictionaries(values(inner[0], sizes), values(inner[1], sizes), max_size=2)
    if hasattr(hint, "dim_str"):
        return tensors(hint, sizes)
    simple = {
        str: TEXTS, int: WHOLE, float: NUMBERS, bool: st.booleans(), type(None): st.none(),
        pd.DataFrame: frames(), np.ndarray: st.just(np.eye(2) > 0), Site: SITES,
    }  # fmt: skip
    if hint in simple:
        return simple[hint]
    if isinstance(hint, type) and issubclass(hint, Site):
        return st.builds(hint, st.integers(0, 9), st.integers(0, 9))
    assert dataclasses.is_dataclass(hint), hint
    return instances(hint)


@st.composite
def tensors(draw: Draw, hint: Any, sizes: dict[str, int]) -> Any:
    """A tensor or array of random bits, some of them odd: NaN, infinite, not contiguous."""
    shape = []
    for name in hint.dim_str.split():
        if name.isdigit():
            shape.append(int(name))
        elif name.startswith("*") or name == "...":
            shape += draw(st.lists(st.integers(0, 3), max_size=2))
        else:
            shape.append(sizes.setdefault(name, draw(st.integers(0, 3))))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    noise = torch.randn(shape, generator=generator, dtype=torch.float64) * 50
    if "bool" in hint.dtypes:
        made = noise > 0
    elif "float32" in hint.dtypes:
        made = noise.to(draw(st.sampled_from(FLOATS)))
        odd = draw(st.sampled_from([None, math.nan, math.inf, -0.0]))
        made = made if odd is None else torch.where(noise > 30, odd, made)
    else:
        made = noise.clamp(-120, 120).to(draw(st.sampled_from(INTS)))
    if hint.array_type is np.ndarray:
        return made.double().numpy() if made.is_floating_point() else made.numpy()
    return made.mT.contiguous().mT if made.ndim > 1 and draw(st.booleans()) else made


@st.composite
def frames(draw: Draw) -> pd.DataFrame:
    rows = draw(st.integers(0, 3))
    words = st.text(st.characters(codec="utf-8"), max_size=8)
    kinds = (NUMBERS, st.integers(-99, 99), st.booleans(), words, st.none() | words)
    columns = draw(st.dictionaries(words, st.sampled_from(kinds), max_size=3))
    return pd.DataFrame(
        {
            name: draw(st.lists(kind, min_size=rows, max_size=rows))
            for name, kind in columns.items()
        },
        index=pd.RangeIndex(rows),
    )


@st.composite
def circuits(draw: Draw) -> Circuit:
    shape = draw(SPECIAL[Shape]())
    kept = draw(st.lists(st.booleans(), min_size=len(shape.edges), max_size=len(shape.edges)))
    scores = torch.linspace(-1, 1, len(shape.edges))
    places = {shape.nodes[1]: ("END", "S2")}
    return Circuit(
        shape, torch.tensor(kept), scores, torch.full((len(shape.nodes),), math.nan), places
    )


SPECIAL: dict[type[Any], Callable[[], st.SearchStrategy[Any]]] = {
    Circuit: circuits,
    Shape: lambda: st.builds(
        Shape, st.integers(1, 2), st.just(2), st.integers(1, 2), st.booleans(), st.booleans()
    ),
    Graph: lambda: st.just(Graph("ring", torch.ones(3, 3, dtype=torch.bool) ^ torch.eye(3).bool())),
    PromptSet: lambda: st.builds(
        lambda n, notes: PromptSet.from_tokens([[1, 2, 3]] * n, answer=[4] * n, notes=notes),
        st.integers(1, 3),
        st.dictionaries(TEXTS, ANYTHING, max_size=2),
    ),
    Question: lambda: st.builds(lambda text: Question(text, "yes", ("yes", "no")), TEXTS),
    Score: lambda: st.builds(
        lambda kind, n, chance: Score(kind, torch.rand(2, 3, n), "words", chance, {}),
        st.sampled_from(sorted(KINDS)),
        st.integers(1, 3),
        NUMBERS,
    ),
    Vector: lambda: st.builds(
        lambda layer, scale: Vector({layer: torch.rand(4)}, "add", "task", {}, "END", scale),
        st.integers(0, 5),
        NUMBERS,
    ),
}
"""Classes that refuse most contents."""


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit: types, order, number formats and NaN included."""
    if isinstance(one, Tensor | np.ndarray):
        a, b = torch.as_tensor(one), torch.as_tensor(other)
        alike = type(one) is type(other) and a.dtype == b.dtype and a.shape == b.shape
        return alike and torch.equal(*(x.contiguous().view(-1).view(torch.uint8) for x in (a, b)))
    if isinstance(one, pd.DataFrame):
        pd.testing.assert_frame_equal(one, other)
        return True
    if isinstance(one, Site) or type(one) is not type(other):
        return type(one) is type(other) and one == other
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or str(one) == str(other)
    if isinstance(one, dict):
        return len(one) == len(other) and all(map(same, one.items(), other.items()))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if dataclasses.is_dataclass(one):
        names = [field.name for field in fields_of(type(one))]
        return all(same(getattr(one, name), getattr(other, name)) for name in names)
    return bool(one == other)
