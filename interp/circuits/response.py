"""How do heads downstream respond to a change: where they look, and what they add to the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.activations import capture
from interp.display import Displayed
from interp.engine import Intervention
from interp.engine.clean import CleanRun
from interp.engine.groups import Group, groups
from interp.engine.memory import largest_group
from interp.engine.metrics import Metric
from interp.engine.naive import edited
from interp.engine.replay import Replay, replay_of
from interp.engine.score import Scorer
from interp.engine.sources import Sources
from interp.models import Model
from interp.plots import site_bars
from interp.prompts import PromptSet
from interp.saved import Saved
from interp.sites import Head
from interp.stats import bootstrap_ci


@dataclass(frozen=True, eq=False)
class Response(Saved, Displayed):
    """Some heads before and after a change.

    Attributes:
        heads: The heads.
        roles: Where they may look.
        attention: Probability that a head gives to all tokens of a role, from the query role (the
            mean over its tokens), before and after; NaN for prompts that lack the role.
        direct: By how much the metric falls if what the head adds at END is taken from the last
            residual stream, before and after.
        query: The role that they look from.
        metric: Of `direct`.
    """

    heads: tuple[Head, ...]
    roles: tuple[str, ...]
    attention: Float[Tensor, "when heads roles prompts"]
    direct: Float[Tensor, "when heads prompts"]
    query: str
    metric: str

    def to_frame(self) -> pd.DataFrame:
        """One row a head and role, and one for its direct effect.

        Columns: head, what ("attention to IO", "direct logit_diff"), before, after, change, ci_low,
        ci_high (of the change, over prompts), n.
        """
        whats = [*(f"attention to {role}" for role in self.roles), f"direct {self.metric}"]
        before, after = torch.cat([self.attention, self.direct[:, :, None]], dim=2)
        low, high = bootstrap_ci(after - before)
        rows = []
        for i, head in enumerate(self.heads):
            for j, what in enumerate(whats):
                rows.append(
                    {
                        **{"head": str(head), "what": what},
                        "before": before[i, j].nanmean().item(),
                        "after": after[i, j].nanmean().item(),
                        "change": (after - before)[i, j].nanmean().item(),
                        **{"ci_low": low[i, j].item(), "ci_high": high[i, j].item()},
                        "n": int((~before[i, j].isnan()).sum()),
                    }
                )
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """A bar for each row of `to_frame`: the change, with its interval."""
        frame = self.to_frame()
        names = [f"{row.head} {row.what}" for row in frame.itertuples()]
        return site_bars(
            frame["change"].tolist(),
            low=frame["ci_low"].tolist(),
            high=frame["ci_high"].tolist(),
            names=names,
            title=f"Heads looking from {self.query}, after less before",
            across=f"change of probability, or of {self.metric}",
            hover=[f"{row.before:.3f} before, {row.after:.3f} after" for row in frame.itertuples()],
        )


@torch.no_grad()
def response_of(
    model: Model,
    prompts: PromptSet,
    heads: Sequence[Head],
    before: Intervention | None,
    after: Intervention,
    *,
    roles: Sequence[str],
    query: str,
    metric: Metric,
) -> Response:
    """Some heads under two interventions (None: the model left as it is), prompt by prompt.

    A head that an intervention forces itself is shown as it would look from what it reads.

    Raises:
        PromptError: A role that no prompt has.
    """
    replay = replay_of(model)
    asked = torch.stack([inside(prompts, role) for role in roles])
    looking = inside(prompts, query)
    dtype = torch.promote_types(model.dtype, torch.float32)
    attention = torch.empty(2, len(heads), len(roles), len(prompts), dtype=dtype)
    direct = torch.empty(2, len(heads), len(prompts), dtype=dtype)
    some = groups(prompts, largest_group(replay, prompts))
    for when, intervention in enumerate((before, after)):
        given = [] if intervention is None else [intervention]
        sources = Sources(replay, prompts, some, given)
        for group in some:
            job = sources.open(group).job(0, given[0]) if given else None
            if job is not None:
                job.prepare()
            with edited(replay.body, job, model.geometry.n_kv_heads):
                run = replay.clean(group.tokens, ["z"])
            direct[when][:, group.rows] = _direct(replay, run, heads, metric, group).to(direct)
            from_query, to_role = group.cut(looking), asked[:, group.rows[:, None], group.columns]
            for layer in {head.layer for head in heads}:
                patterns = _patterns(model, group, layer, run.stream[layer]).to(dtype)
                rows = (patterns * from_query[:, None, :, None]).sum(dim=2)
                looks = rows / from_query.sum(dim=-1)[:, None, None]
                for i, head in enumerate(heads):
                    if head.layer == layer:
                        found = (looks[:, head.head] * to_role).sum(dim=-1)
                        attention[when, i][:, group.rows] = found
    present = asked.any(dim=-1)
    attention = attention.masked_fill(~present, torch.nan)
    return Response(tuple(heads), tuple(roles), attention, direct, query, metric.name)


def inside(prompts: PromptSet, role: str) -> Bool[Tensor, "prompts pos"]:
    """The columns of a role; none in prompts that lack it.

    Raises PromptError for a role that no prompt has.
    """
    spans, columns = prompts.span(role).cpu(), torch.arange(prompts.clean.shape[1])
    return (columns >= spans[:, :1]) & (columns < spans[:, 1:])


def _patterns(
    model: Model, group: Group, layer: int, stream: Float[Tensor, "prompts pos d_model"]
) -> Float[Tensor, "prompts head queries keys"]:
    """What the heads of a layer look at when its block reads this stream."""
    some = PromptSet.from_tokens(group.tokens, answer=[0] * len(group))
    name = f"blocks.{layer}.attn.hook_pattern"
    enter = (f"blocks.{layer}.hook_resid_pre", lambda activation, hook: stream)
    with model.bridge.hooks(fwd_hooks=[enter]):
        return capture(model, some, name, batch_size=len(group))[name]


def _direct(
    replay: Replay, run: CleanRun, heads: Sequence[Head], metric: Metric, group: Group
) -> Float[Tensor, "heads prompts"]:
    """By how much the metric falls without what each head adds at END."""
    end, ends = run.stream[-1][:, -1], []
    for head in heads:
        z = run.parts["z"][head.layer][:, -1:]
        without = z.unflatten(-1, (replay.model.geometry.n_heads, -1)).clone()
        without[:, :, head.head] = 0
        added = replay.after_attention(head.layer, z)
        added = added - replay.after_attention(head.layer, without.flatten(2))
        ends.append(end - added[:, 0])
    scores = Scorer(replay, metric, group.prompts[group.rows], end)(torch.stack([end, *ends]))
    return (scores[0] - scores[1:]).cpu()
