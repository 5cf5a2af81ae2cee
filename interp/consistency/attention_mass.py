"""Where does the token that an answer is read at look? Attention mass on spans of a prompt.

A coin is heads up. Mary flips the coin. \\nQ: Is it heads up?\\nA: Step by step: ... The answer is
└─ context ─────────────────────────────┘└─ query ───────────┘  └─ rationale ┘      answer from ┘
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.activations import capture
from interp.activations.batches import require_fit
from interp.consistency.answers import Answers, tokens_before
from interp.consistency.questions import Question, label_tokens
from interp.display import Displayed
from interp.errors import PromptError, TaskError
from interp.models import Model
from interp.plots import head_heatmap
from interp.progress import track
from interp.prompts import PromptSet
from interp.prompts.align import span_of_tokens, tokenize
from interp.prompts.prompt_set import ABSENT
from interp.provenance import provenance
from interp.saved import Saved
from interp.stats import bootstrap_ci

SPANS = ("context", "query", "rationale")
KEPT_ROWS = 2**25
"""Attention weights that are held at once: one row of each head, and never a whole pattern."""


@dataclass(frozen=True, eq=False)
class AttentionMass(Saved, Displayed):
    """The attention that the last token of each prompt gives to spans of it.

    Attributes:
        values: Of each head; NaN on a span that a prompt lacks. The others sum to 1.
        uniform: What a head would give that looks at all tokens equally, the control.
        spans: The spans asked for; then "first", the first token where no span covers it (many
            heads rest there), and "rest".
        provenance: Model, prompts, versions.
    """

    values: Float[Tensor, "prompts layer head spans"]
    uniform: Float[Tensor, "prompts spans"]
    spans: tuple[str, ...]
    provenance: dict[str, Any] = field(repr=False)

    @property
    def by_layer(self) -> Float[Tensor, "prompts layer spans"]:
        """Mean over the heads of each layer."""
        return self.values.mean(dim=2)

    def grid(self, span: str) -> Float[Tensor, "layer head"]:
        """Mean over prompts of what each head gives to one span.

        Raises PromptError for a span that was not measured.
        """
        if span not in self.spans:
            raise PromptError(f"The span {span!r} was not measured; give one of {self.spans}.")
        return self.values[..., self.spans.index(span)].nanmean(dim=0)

    def to_frame(
        self, rows: Bool[Tensor, " prompts"] | None = None, *, heads: bool = False
    ) -> pd.DataFrame:
        """One row for each layer (or head) and span, over all prompts or those of `rows`.

        Columns: layer, head (only with `heads`), span, mass, ci_low and ci_high (95%, over
        prompts), uniform (the control), n (prompts that have the span).
        """
        chosen = torch.ones(len(self.values), dtype=torch.bool) if rows is None else rows
        values = self.values if heads else self.by_layer[:, :, None]
        some, flat = values[chosen].movedim(0, -1), self.uniform[chosen]
        low, high = bootstrap_ci(some)
        layers, units, spans, _ = some.shape
        where = [(i, j, k) for i in range(layers) for j in range(units) for k in range(spans)]
        frame = pd.DataFrame(
            {
                "layer": [layer for layer, _, _ in where],
                "head": [head for _, head, _ in where],
                "span": [self.spans[span] for _, _, span in where],
                "mass": some.nanmean(dim=-1).flatten().tolist(),
                "ci_low": low.flatten().tolist(),
                "ci_high": high.flatten().tolist(),
                "uniform": flat.nanmean(dim=0).repeat(layers * units).tolist(),
                "n": (~some.isnan()).sum(dim=-1).flatten().tolist(),
            }
        )
        return frame if heads else frame.drop(columns="head")

    def plot(self, span: str = "rationale") -> go.Figure:
        """What each head gives to one span, as a grid of layers and heads."""
        title = f"Attention of the answer position of {self.provenance['model']} to the {span}"
        return head_heatmap(self.grid(span), title=title, colorbar="attention mass")

    def __repr__(self) -> str:
        means = self.by_layer.nanmean(dim=(0, 1)).tolist()
        told = ", ".join(f"{span} {mass:.2f}" for span, mass in zip(self.spans, means, strict=True))
        return f"AttentionMass(mean over layers: {told}; n = {len(self.values)} prompts)"


def attention_mass(
    model: Model,
    prompts: PromptSet,
    *,
    spans: Sequence[str] = SPANS,
    progress: bool = False,
) -> AttentionMass:
    """How much attention the last token of each prompt gives to its spans, in every head.

    Xie et al. 2024 find that middle layers look at the query and the rationale; they draw the mean
    over the heads of a layer. Here every head, prompt and control is kept.

    Args:
        model: What `interp.load` returns.
        prompts: Their last token is where the answer is read; `path_prompts` makes them of paths.
        spans: Roles of the prompts that do not overlap.
        progress: Show a bar.

    Raises:
        PromptError: No such role, roles that overlap, or prompts that the model cannot read.
        SiteError: A model without attention patterns.
    """
    covered = _covered(prompts, spans)
    lacking = torch.stack([prompts.span(span)[:, 0] == ABSENT for span in spans], dim=-1).cpu()
    absent = torch.cat([lacking, torch.zeros(len(prompts), 2, dtype=torch.bool)], dim=-1)
    shape = model.geometry
    size = (len(prompts), shape.n_layers, shape.n_heads, covered.shape[-1])
    values = torch.empty(size, dtype=torch.float64)
    for rows, pattern in attention_rows(model, prompts, "END", progress=progress):
        values[rows] = torch.einsum("lphk,pks->plhs", pattern.double(), covered[rows])
    uniform = covered.mean(dim=1) * covered.shape[1] / prompts.mask.cpu().sum(dim=-1)[:, None]
    return AttentionMass(
        values=values.masked_fill(absent[:, None, None], torch.nan),
        uniform=uniform.masked_fill(absent, torch.nan),
        spans=(*spans, "first", "rest"),
        provenance=provenance(model, prompts, method="attention mass", spans=list(spans)),
    )


def attention_rows(
    model: Model, prompts: PromptSet, role: str, *, progress: bool = False
) -> Iterator[tuple[slice, Float[Tensor, "layer some head pos"]]]:
    """The attention of one token of each prompt, some prompts at a time: their rows, and it."""
    require_fit(model, prompts)
    layers = range(model.geometry.n_layers)
    each = model.geometry.n_layers * model.geometry.n_heads * prompts.clean.shape[1]
    size = max(1, KEPT_ROWS // each)
    for start in track(range(0, len(prompts), size), "Reading attention", shown=progress):
        rows = slice(start, start + size)
        found = capture(model, prompts[rows], "blocks.*.attn.hook_pattern", positions=role)
        yield rows, torch.stack([found[f"blocks.{i}.attn.hook_pattern"][:, :, 0] for i in layers])


def _covered(prompts: PromptSet, spans: Sequence[str]) -> Float[Tensor, "prompts pos spans"]:
    """1 where a column belongs to a span, to the first token, or to the rest."""
    mask = prompts.mask.cpu()
    columns = torch.arange(mask.shape[1])[:, None]
    ends = torch.stack([prompts.span(span) for span in spans], dim=1).cpu()
    inside = (columns >= ends[:, None, :, 0]) & (columns < ends[:, None, :, 1])
    twice = inside.sum(dim=-1) > 1
    if twice.any():
        prompt, column = twice.nonzero()[0].tolist()
        raise PromptError(
            f"Column {column} of prompt {prompt} lies in several of the spans {list(spans)}; give "
            "spans that do not overlap."
        )
    free = mask & ~inside.any(dim=-1)
    first = free & (mask.cumsum(dim=-1) == 1)
    return torch.cat([inside, first[..., None], (free & ~first)[..., None]], dim=-1).double()


def path_prompts(model: Model, answers: Answers, *, asks: str = "Q:") -> PromptSet:
    """The paths whose answer was found, as prompts that end where it is read.

    The roles are "context", "query" (the question from the last `asks` on) and "rationale" (what
    was written before the conclusion; absent where the model answered at once); the answer of a
    prompt is what the path gives, right or wrong. `notes["right"]` says which paths are right.

    Raises:
        TaskError: No path has an answer, or a question without `asks` or without a context.
        PromptError: A slow tokenizer, which does not say which characters a token covers.
    """
    paths = answers.given.shape[1]
    known = [row for row, read in enumerate(answers.read) if read]
    if not known:
        raise TaskError("No path has an answer that the rule finds; there is nothing to read.")
    asked = {i: _asked(model, answers.questions[i], asks) for i in {row // paths for row in known}}
    labels = label_tokens(model, answers.questions[0])
    given = answers.given.flatten()[known]
    told = [_rationale(model, answers.questions[row // paths], answers.read[row]) for row in known]
    return PromptSet.from_tokens(
        [answers.read[row] for row in known],
        answer=labels[given],
        wrong=[[int(each) for k, each in enumerate(labels) if k != one] for one in given.tolist()],
        roles={
            "context": torch.tensor([asked[row // paths][0] for row in known]),
            "query": torch.tensor([asked[row // paths][1] for row in known]),
            "rationale": torch.tensor(told),
        },
        task="paths",
        notes={"right": answers.right.flatten()[known].tolist()},
    )


def _asked(model: Model, question: Question, asks: str) -> list[tuple[int, int]]:
    """Columns of the context and of the query."""
    text, at = question.text, question.text.rfind(asks)
    if not asks or not text[: max(at, 0)].strip():
        raise TaskError(
            f"The question {text[:60]!r} has no context before {asks!r}; give asks=, the words "
            "with which a query begins."
        )
    bos = int(model.bos_id is not None)
    _, offsets = tokenize(model, text)
    pieces = {"context": (0, at), "query": (at, len(text))}
    return [
        span_of_tokens(text, piece, offsets, shift=bos, role=role, prompt=0)
        for role, piece in pieces.items()
    ]


def _rationale(model: Model, question: Question, read: tuple[int, ...]) -> tuple[int, int]:
    """Columns of what was written between the opening of a rationale and the conclusion."""
    bos = [] if model.bos_id is None else [model.bos_id]
    opened = (*bos, *model.encode(question.prompt(rationale=True)))
    if read[: len(opened)] != opened:
        return ABSENT, ABSENT
    written = list(read[len(opened) :])
    text = str(model.tokenizer.decode(written))
    conclusion = text.rfind(question.conclusion.strip())
    length = len(written) if conclusion < 0 else tokens_before(model, written, conclusion)
    return (len(opened), len(opened) + length) if length > 0 else (ABSENT, ABSENT)
