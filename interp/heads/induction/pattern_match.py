"""Pattern match: how much does the attention of a head look like a pattern that is given?

The measures are those of `transformer_lens.head_detector.detect_head`, here on many prompts at
once. With a pattern A of attention, a pattern D that is looked for, and S tokens:

    mul   sum(A * D) / sum(A)        the share of the attention that lies where D is 1
    abs   1 - sum(|A - D|) / S       1 if A is D, and as low as -1

Three patterns have names, each with ones at the keys that a query i should look at:

    previous_token_head     i - 1
    duplicate_token_head    earlier occurrences of token i
    induction_head          what followed the earlier occurrences of token i
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.display import Displayed
from interp.engine.groups import groups
from interp.errors import MetricError, PromptError, did_you_mean
from interp.heads.attention import patterns_by_layer
from interp.models import Model
from interp.plots import head_heatmap
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Head
from interp.stats import bootstrap_ci

PATTERNS = ("previous_token_head", "duplicate_token_head", "induction_head")
MEASURES = ("mul", "abs")


@dataclass(frozen=True, eq=False)
class PatternMatch(Saved, Displayed):
    """How well every head matches a pattern.

    Attributes:
        values: The match of each head on each prompt; NaN where all its attention is left out.
        chance: The mean match of attention that is spread evenly over all earlier tokens.
        pattern: Name of the pattern, or "given" for one of the user's.
        measure: "mul" or "abs".
        provenance: Model, weights hash, prompts, options and versions.
    """

    values: Float[Tensor, "layer head prompts"]
    chance: float
    pattern: str
    measure: str
    provenance: dict[str, Any]

    @property
    def grid(self) -> Float[Tensor, "layer head"]:
        """Mean over prompts."""
        return self.values.nanmean(dim=-1)

    def ci(
        self, *, level: float = 0.95
    ) -> tuple[Float[Tensor, "layer head"], Float[Tensor, "layer head"]]:
        """Bootstrap confidence interval of every mean over prompts: its low and high ends."""
        return bootstrap_ci(self.values, level=level)

    def to_frame(self) -> pd.DataFrame:
        """One row a head: head, match, ci_low, ci_high (95%), chance, n (prompts)."""
        layers, heads, _ = self.values.shape
        low, high = self.ci()
        return pd.DataFrame(
            {
                "head": [
                    str(Head(layer, head)) for layer in range(layers) for head in range(heads)
                ],
                "match": self.grid.flatten().tolist(),
                "ci_low": low.flatten().tolist(),
                "ci_high": high.flatten().tolist(),
                "chance": self.chance,
                "n": (~self.values.isnan()).sum(dim=-1).flatten().tolist(),
            }
        )

    def plot(self) -> go.Figure:
        """A layer x head heatmap."""
        title = f"Match of {self.pattern} in {self.provenance['model']}"
        return head_heatmap(
            self.grid, title=title, colorbar=self.measure, diverging=self.measure == "abs"
        )

    def __repr__(self) -> str:
        best = self.to_frame().sort_values("match", ascending=False).head(3)
        named = ", ".join(f"{row.head} {row.match:.2f}" for row in best.itertuples())
        return f"PatternMatch({self.pattern}, {self.measure}: {named}; n = {self.values.shape[-1]})"


def pattern_match(
    model: Model,
    prompts: PromptSet | str | Sequence[str],
    pattern: str | Float[Tensor, "pos pos"],
    *,
    measure: str = "mul",
    exclude_bos: bool = False,
    exclude_current_token: bool = False,
    progress: bool = True,
) -> PatternMatch:
    """Compare the attention of every head on every prompt with a pattern.

    Args:
        model: What `interp.load` returns.
        prompts: A PromptSet, or one text or several, which begin with BOS. Any lengths; padding is
            cut off.
        pattern: A name in PATTERNS, or rows of queries and columns of keys, zero above the
            diagonal; all prompts then have its length.
        measure: "mul", for patterns of zeros and ones, or "abs", for expected attention.
        exclude_bos: Leave out the attention to the first token.
        exclude_current_token: Leave out the attention of tokens to themselves.
        progress: Show a bar.

    Raises:
        MetricError: An unknown name or measure, or a pattern that is not lower triangular, not of
            the prompts' length, or not of zeros and ones for "mul".
        PromptError: Prompts of one token, or that the model cannot read.

    Unlike TransformerLens, which averages over texts, this keeps every prompt, does not round "abs"
    to three digits, and refuses "mul" with other values than 0 and 1 instead of warning.

    >>> import interp
    >>> model = interp.load("induction")
    >>> tokens = interp.heads.repeated_tokens(model, n=2, seq_len=20)
    >>> prompts = interp.PromptSet.from_tokens(tokens, answer=tokens[:, -1])
    >>> pattern_match(model, prompts, "induction_head").values.shape
    torch.Size([2, 8, 2])
    """
    prompts = prompts if isinstance(prompts, PromptSet) else _from_text(model, prompts)
    lengths = prompts.mask.sum(dim=-1)
    if lengths.min() < 2:
        raise PromptError(
            f"Prompt {int(lengths.argmin())} has a single token, which looks at itself alone; give "
            "prompts of two tokens or more."
        )
    _validate(pattern, measure, lengths)
    shape = model.geometry
    dtype = torch.promote_types(model.dtype, torch.float32)
    values = torch.empty(shape.n_layers, shape.n_heads, len(prompts), dtype=dtype)
    chance = torch.empty(len(prompts), dtype=dtype)
    for group in groups(prompts):
        tokens = group.tokens
        compared = torch.ones(group.length, group.length, dtype=dtype).tril()
        if exclude_bos:
            compared[:, 0] = 0
        if exclude_current_token:
            compared.fill_diagonal_(0)
        uniform = compared.new_ones(compared.shape).tril()
        uniform /= uniform.sum(dim=-1, keepdim=True)
        for rows, layer, attention in patterns_by_layer(model, tokens, progress=progress):
            wanted = (
                detection_pattern(pattern, tokens[rows]).to(dtype)
                if isinstance(pattern, str)
                else pattern.cpu().to(dtype).expand(len(tokens[rows]), -1, -1)
            )[:, None]
            values[layer, :, group.rows[rows]] = _match(attention, wanted, compared, measure).T
            chance[group.rows[rows]] = _match(uniform, wanted, compared, measure)[:, 0]
    options = {"exclude_bos": exclude_bos, "exclude_current_token": exclude_current_token}
    name = pattern if isinstance(pattern, str) else "given"
    source = provenance(model, prompts, pattern=name, measure=measure, **options)
    return PatternMatch(values, chance.nanmean().item(), name, measure, source)


def detection_pattern(
    name: str, tokens: Int[Tensor, "prompts pos"]
) -> Bool[Tensor, "prompts pos pos"]:
    """Where the queries of a kind of head look: rows are queries, columns keys.

    >>> detection_pattern("induction_head", torch.tensor([[7, 5, 7, 5]]))[0].int().tolist()
    [[0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    """
    count, length = tokens.shape
    if name == "previous_token_head":
        return torch.ones(count, length, length).tril(-1).triu(-1).bool()
    earlier = (tokens[:, :, None] == tokens[:, None, :]).tril(-1)
    if name == "duplicate_token_head":
        return earlier
    followed = torch.zeros_like(earlier)
    followed[:, :, 1:] = earlier[:, :, :-1]
    return followed


def _match(
    attention: Float[Tensor, "*prompts_head pos pos"],
    wanted: Float[Tensor, "prompts 1 pos pos"],
    compared: Float[Tensor, "pos pos"],
    measure: str,
) -> Float[Tensor, "prompts head"]:
    seen = attention * compared
    if measure == "mul":
        return (seen * wanted).sum(dim=(-2, -1)) / seen.sum(dim=(-2, -1))
    missed = (seen - wanted * compared).abs().sum(dim=(-2, -1))
    return 1 - missed / compared.shape[-1]


def _from_text(model: Model, texts: str | Sequence[str]) -> PromptSet:
    bos = [] if model.bos_id is None else [model.bos_id]
    rows = [bos + model.encode(text) for text in ([texts] if isinstance(texts, str) else texts)]
    return PromptSet.from_tokens(rows, answer=[row[-1] if row else 0 for row in rows])


def _validate(
    pattern: str | Float[Tensor, "pos pos"], measure: str, lengths: Int[Tensor, " prompts"]
) -> None:
    """Raises MetricError."""
    if measure not in MEASURES:
        raise MetricError(f"There is no measure {measure!r}: {did_you_mean(measure, MEASURES)}")
    if isinstance(pattern, str):
        if pattern not in PATTERNS:
            raise MetricError(f"There is no pattern {pattern!r}: {did_you_mean(pattern, PATTERNS)}")
        return
    other = lengths != len(pattern)
    if other.any():
        prompt = int(other.int().argmax())
        raise MetricError(
            f"The pattern is for {len(pattern)} tokens and prompt {prompt} has "
            f"{int(lengths[prompt])}; give prompts of the pattern's length."
        )
    if not pattern.equal(pattern.tril()):
        row, column = pattern.triu(1).nonzero()[0].tolist()
        raise MetricError(
            f"The pattern has {pattern[row, column]:g} at query {row} and key {column}, and no "
            "token sees a later one; give a lower triangular pattern, such as pattern.tril()."
        )
    if measure == "mul" and not ((pattern == 0) | (pattern == 1)).all():
        raise MetricError(
            "The pattern has values other than 0 and 1, of which 'mul' makes no share of the "
            "attention; use measure='abs'."
        )
