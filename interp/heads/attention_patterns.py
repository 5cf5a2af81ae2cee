"""Where chosen heads look on chosen prompts, word by word."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.activations import capture
from interp.errors import InterpError, PromptError, SiteError
from interp.models import Model
from interp.plots.attention_viewer import attention_figure, attention_viewer
from interp.plots.widget import Widget
from interp.prompts import PromptSet
from interp.prompts.align import tokenize
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Head, Site, parse, resolve

MOST_NUMBERS = 2**24
"""Attention probabilities that are kept: heads x tokens x tokens, over all prompts (64 MB)."""


@dataclass(frozen=True, eq=False)
class AttentionPatterns(Saved):
    """The attention of some heads on some prompts; `interp.heads.attention_patterns` makes one.

    Attributes:
        heads: Whose patterns they are.
        tokens: The text of each token of each prompt, without padding.
        patterns: One for each prompt: row i is the attention of token i to itself and the tokens
            before it, and adds up to 1.
        provenance: Model, weights hash, prompts, dtype, device, versions.
    """

    heads: tuple[Head, ...]
    tokens: tuple[tuple[str, ...], ...]
    patterns: tuple[Float[Tensor, "heads _ _"], ...]
    provenance: dict[str, Any]

    def pattern(self, head: Head | str, prompt: int = 0) -> Float[Tensor, "query key"]:
        """The pattern of one head on one prompt.

        Raises:
            SiteError: A head that is not among these.
            PromptError: A prompt that is not among these.
        """
        return self._of(prompt)[self._row(head)]

    def select(self, heads: Iterable[Head | str]) -> AttentionPatterns:
        """The same prompts with these heads alone.

        Raises:
            SiteError: A head that is not among these.
        """
        rows = [self._row(head) for head in heads]
        return AttentionPatterns(
            tuple(self.heads[row] for row in rows),
            self.tokens,
            tuple(pattern[rows] for pattern in self.patterns),
            self.provenance,
        )

    def to_frame(self, *, least: float = 0.0) -> pd.DataFrame:
        """One row for each head, prompt, token that looks and token that it may look at.

        Columns: head, prompt, query and key (positions), query_token, key_token, attention (at
        least `least`).
        """
        columns: dict[str, list[Any]] = {
            "head": [], "prompt": [], "query": [], "key": [], "query_token": [], "key_token": [],
            "attention": [],
        }  # fmt: skip
        for prompt, (words, pattern) in enumerate(zip(self.tokens, self.patterns, strict=True)):
            kept = (pattern >= least) & torch.ones_like(pattern, dtype=torch.bool).tril()
            heads, queries, keys = (found.tolist() for found in kept.nonzero(as_tuple=True))
            columns["head"] += [str(self.heads[head]) for head in heads]
            columns["prompt"] += [prompt] * len(heads)
            columns["query"] += queries
            columns["key"] += keys
            columns["query_token"] += [words[query] for query in queries]
            columns["key_token"] += [words[key] for key in keys]
            columns["attention"] += pattern[kept].tolist()
        return pd.DataFrame(columns)

    def plot(self, head: Head | str | None = None, prompt: int = 0) -> go.Figure:
        """Heatmap of one head on one prompt: tokens that look by tokens that are looked at.

        Raises:
            SiteError, PromptError: A head or a prompt that is not among these.
        """
        shown = self.heads[0] if head is None else head
        pattern = self.pattern(shown, prompt)
        title = f"Attention of {shown} in {self._model}, prompt {prompt}"
        return attention_figure(self.tokens[prompt], pattern, title=title)

    def viewer(self) -> Widget:
        """The heads as thumbnails, and what each token looks at, to point at and to walk through.

        It works without network in Jupyter, in VS Code and in a report.
        """
        return attention_viewer(
            self.tokens, self.patterns, self.heads, title=f"Attention in {self._model}"
        )

    @property
    def _model(self) -> str:
        return str(self.provenance.get("model", "the model"))

    def _row(self, head: Head | str) -> int:
        site = _head(head)
        if site not in self.heads:
            raise SiteError(
                f"The attention of {site} is not among these, which are {_some(self.heads)}; "
                "measure it with interp.heads.attention_patterns."
            )
        return self.heads.index(site)

    def _of(self, prompt: int) -> Float[Tensor, "heads query key"]:
        if not 0 <= prompt < len(self.patterns):
            raise PromptError(
                f"There is no prompt {prompt}; these are 0 to {len(self.patterns) - 1}."
            )
        return self.patterns[prompt]

    def __repr__(self) -> str:
        count, longest = len(self.tokens), max(map(len, self.tokens))
        return (
            f"AttentionPatterns({self._model}: heads {_some(self.heads)} on {count} "
            f"prompt{'s' * (count > 1)} of up to {longest} tokens)"
        )

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{self.viewer()._repr_html_()}"


def attention_patterns(
    model: Model,
    prompts: PromptSet | str | Sequence[str],
    heads: Iterable[Head | str] | None = None,
    *,
    limit: int = 8,
) -> AttentionPatterns:
    """Where heads look on the clean prompts. Each prompt runs alone, without padding.

    >>> import interp
    >>> model = interp.load("polymath")
    >>> seen = interp.heads.attention_patterns(model, "John went to the park", ["2.1", "3.5"])
    >>> seen.patterns[0].shape
    torch.Size([2, 6, 6])

    Args:
        model: What `interp.load` returns.
        prompts: Prompts of a task, or a text or several, which then begin with `model.bos_id`.
        heads: Heads or their printed forms, such as "5.1"; every head by default.
        limit: Prompts that are looked at: the first so many.

    Raises:
        SiteError: A head that the model lacks, or a site that is no head.
        PromptError: No prompt, or one that the model cannot read.
        InterpError: More numbers than MOST_NUMBERS.
    """
    if limit < 1:
        raise PromptError(
            f"limit is {limit}, and there must be a prompt to look at; give 1 or more."
        )
    chosen = tuple(map(_head, resolve(heads, model)))
    known = prompts if isinstance(prompts, PromptSet) else _prompts(model, prompts)
    pairs = zip(known.clean[:limit], known.mask[:limit], strict=True)
    rows = [row[real].tolist() for row, real in pairs]
    _require_small(chosen, [len(row) for row in rows])
    return AttentionPatterns(
        chosen,
        tuple(tuple(model.tokenizer.batch_decode([[token] for token in row])) for row in rows),
        tuple(_pattern(model, row, chosen) for row in rows),
        provenance(model, known, method="attention patterns", limit=limit),
    )


def _prompts(model: Model, texts: str | Sequence[str]) -> PromptSet:
    """Texts as prompts that nothing is asked about: the last token stands for the answer."""
    bos = [] if model.bos_id is None else [model.bos_id]
    rows = [
        bos + tokenize(model, text)[0] for text in ([texts] if isinstance(texts, str) else texts)
    ]
    if not all(rows):
        raise PromptError("A text has no tokens, so there is nothing to look at; give some words.")
    return PromptSet.from_tokens(rows, answer=[row[-1] for row in rows])


def _pattern(
    model: Model, row: list[int], heads: Sequence[Head]
) -> Float[Tensor, "heads query key"]:
    names = {head.layer: f"blocks.{head.layer}.attn.hook_pattern" for head in heads}
    prompt = PromptSet.from_tokens([row], answer=row[-1:])  # the answer is not asked for
    layers = capture(model, prompt, names.values())
    found = torch.stack([layers[names[head.layer]][0, head.head] for head in heads])
    return found.to(torch.promote_types(found.dtype, torch.float32))


def _head(site: Site | str) -> Head:
    found = parse(site) if isinstance(site, str) else site
    if not isinstance(found, Head):
        raise SiteError(f"{found} is not a head, and only heads attend; write one as 5.1.")
    return found


def _require_small(heads: Sequence[Head], lengths: Sequence[int]) -> None:
    numbers = len(heads) * sum(length**2 for length in lengths)
    if numbers > MOST_NUMBERS:
        raise InterpError(
            f"{len(heads)} heads on {len(lengths)} prompts of up to {max(lengths)} tokens are "
            f"{numbers:,} attention probabilities, and at most {MOST_NUMBERS:,} are kept; name "
            "fewer heads, or give shorter or fewer prompts (limit=1)."
        )


def _some(heads: Sequence[Head], most: int = 6) -> str:
    names = ", ".join(map(str, heads[:most]))
    return names if len(heads) <= most else f"{names} and {len(heads) - most} more"
