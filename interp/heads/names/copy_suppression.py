"""Which heads take back what the model is about to copy? (McDougall et al. 2023)

Earlier layers predict a token of the context; the head attends to that token, and lowers its logit.
`copy_suppression` scores all three steps together on prompts. `copy_suppression_share` asks of one
head how much of what it does is that and nothing else (their section 3, "CSPA").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.activations import capture
from interp.activations.batches import require_fit
from interp.display import Displayed
from interp.engine.clean import CleanRun
from interp.engine.metrics import kl
from interp.engine.replay import replay_of
from interp.engine.score import LOGITS
from interp.engine.sources import require_patterns
from interp.errors import MetricError, PromptError
from interp.heads.names.logit_attribution import Ends, Frozen, ends_of, frozen, mean_unembedding
from interp.heads.score import Score
from interp.heads.weights import Weights
from interp.models import Model
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Head, parse, validate
from interp.tasks import get

TOP = 10
"""Predictions that a token must be among; and pairs that are kept at each destination."""
SUPPRESSED = 5
"""Tokens that each source token is said to suppress."""


@torch.no_grad()
def copy_suppression(
    model: Model,
    *,
    prompts: PromptSet | None = None,
    n: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> Score:
    """The score "copy-suppression": attention to predicted tokens that the head lowers, at END.

    On each prompt it is the attention from END to earlier tokens that are among the ten likeliest
    next tokens before the head, and that the head lowers. "Before the head" is the stream that
    enters its layer, read by the final norm and the unembedding; the model's own output would
    already have what the head took back taken back. "Lowers" is a direct effect on the token's
    logit below that on the mean logit of the vocabulary. `chance` is the score of a head that
    attends to all it sees alike and lowers every token, so the most that a head that does nothing
    can have.

    Args:
        model: Of any architecture.
        prompts: Of any kind; by default `n` prompts of the task "ioi" drawn with `seed`.
        n, seed: Of the task's prompts.
        progress: Show a bar.

    Raises:
        TaskError: The tokenizer has too few names.
        PromptError: Prompts that the model cannot read.
        UnsupportedModel: The stream is not the sum of what the layers add.
    """
    prompts = get("ioi").sample(model, n=n, seed=seed) if prompts is None else prompts
    weights, shape = Weights(model), model.geometry
    values = torch.empty(shape.n_layers, shape.n_heads, len(prompts), dtype=weights.dtype)
    alike = torch.empty(shape.n_layers, len(prompts))
    mean = mean_unembedding(weights)
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(shape.n_layers)]
    for ends in ends_of(weights, prompts, progress=progress):
        tokens, rows = ends.group.tokens, ends.group.rows
        bare = PromptSet.from_tokens(tokens, answer=[0] * len(tokens))
        patterns = capture(model, bare, names, positions="END").stack("attn.hook_pattern")
        for layer in range(shape.n_layers):
            predicted = _predicted(ends, layer)
            here = (predicted.cpu()[:, :, None] == tokens[:, None]).to(weights.dtype)
            here[..., -1] = 0  # END itself is no earlier token
            attention = torch.einsum(
                "phk,pwk->hpw", patterns[layer][:, :, 0].to(weights.dtype), here
            )
            reads = weights.w_u(predicted.flatten()).T.unflatten(0, predicted.shape) - mean
            lowers = torch.einsum("phd,pwd->hpw", ends.heads(layer), reads).cpu() < 0
            values[layer][:, rows] = (attention * lowers).sum(dim=-1)
            alike[layer, rows] = (here.sum(dim=(1, 2)) / tokens.shape[1]).float()
    notes = {"task": prompts.task, "predictions": min(TOP, shape.d_vocab)}
    return Score("copy-suppression", values, chance=alike.mean().item(), notes=notes)


def _predicted(ends: Ends, layer: int) -> Int[Tensor, "prompts words"]:
    """The likeliest next tokens as the stream stands before a layer."""
    logits = ends.replay.logits(ends.run.stream[layer][:, -1])
    return logits.topk(min(TOP, logits.shape[-1])).indices


@dataclass(frozen=True, eq=False)
class CopySuppressionShare(Saved, Displayed):
    """How much of what a head does is copy suppression.

    Attributes:
        head: Which head.
        ablated: KL(clean || head replaced by its mean) in nats, mean over the positions of each
            prompt.
        kept: The same where copy suppression alone is kept.
        control: The same where as many tokens drawn at random take the place of the suppressed.
        provenance: Model, weights hash, tokens, versions.
    """

    head: Head
    ablated: Float[Tensor, " prompts"]
    kept: Float[Tensor, " prompts"]
    control: Float[Tensor, " prompts"]
    provenance: dict[str, Any]

    @property
    def share(self) -> float:
        """1 - KL(kept) / KL(ablated): 1 if the head does nothing else."""
        return 1 - (self.kept.mean() / self.ablated.mean()).item()

    @property
    def control_share(self) -> float:
        """The same for random tokens."""
        return 1 - (self.control.mean() / self.ablated.mean()).item()

    def ci(self, *, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
        """95% bootstrap interval of the share over prompts."""
        n, generator = len(self.kept), torch.Generator().manual_seed(seed)
        drawn = torch.randint(n, (resamples, n), generator=generator)
        shares = 1 - self.kept[drawn].mean(dim=-1) / self.ablated[drawn].mean(dim=-1)
        low, high = shares.double().quantile(torch.tensor([0.025, 0.975]).double()).tolist()
        return low, high

    def __repr__(self) -> str:
        low, high = self.ci()
        return (
            f"CopySuppressionShare({self.head}: {self.share:.2f} [{low:.2f}, {high:.2f}], random "
            f"tokens {self.control_share:.2f}; n = {len(self.kept)} prompts)"
        )


@torch.no_grad()
def copy_suppression_share(
    model: Model,
    head: Head | str,
    tokens: Int[Tensor, "prompts pos"],
    *,
    seed: int = 0,
    progress: bool = True,
) -> CopySuppressionShare:
    """How much of a head's direct effect remains if it may do nothing but copy suppression.

    The head's output is split by source token, and of each source only the projection onto the
    span of the unembeddings of its five most suppressed tokens is kept; of all such (source, token)
    pairs, only the ten whose token is likeliest at the destination before the head's layer (of
    equally likely ones, those of the earlier source). All else is replaced by the head's mean over
    the given tokens. KLs are from the clean predictions, at every position, and later layers add
    what they added in the clean run.

    The tokens that a source suppresses are read from the weights: its embedding, with what the MLP
    of block 0 makes of it, through the head's values and output to the logits, smallest first.
    Values are taken relative to the head's mean output; as attention sums to 1, all projections
    together with the mean give the head's output again. The source keeps negative components alone
    in one variant; here the whole projection is kept.

    Args:
        model: Whose heads give their patterns times their values.
        head: Such as `Head(10, 7)` or "10.7".
        tokens: Prompts of one length: ordinary text.
        seed: Of the random tokens of the control.
        progress: Show a bar.

    Raises:
        SiteError: No such head.
        PromptError: Prompts that the model cannot read.
        MetricError: Replacing the head by its mean changes no prediction.
        UnsupportedModel: A model without separate values.
    """
    site = parse(head) if isinstance(head, str) else head
    if not isinstance(site, Head):
        raise PromptError(f"{head} is not one head; name one, such as '10.7'.")
    validate(site, model.geometry)
    prompts = PromptSet.from_tokens(tokens, answer=[0] * len(tokens))
    require_fit(model, prompts)
    alone = _OneHead(model, site, tokens)
    suppressed = alone.suppressed()
    generator = torch.Generator().manual_seed(seed)
    random = torch.randint(model.geometry.d_vocab, suppressed.shape, generator=generator)
    rows = [
        alone.divergences(prompt, [suppressed[prompt], random[prompt]])
        for prompt in track(range(len(tokens)), f"Suppressing with {site}", shown=progress)
    ]
    ablated, kept, control = torch.stack(rows).T.cpu()
    if not ablated.mean() > 0:
        raise MetricError(
            f"Replacing {site} by its mean changes no prediction on these prompts, so there is no "
            "effect to explain; use another head or other prompts."
        )
    source = provenance(model, prompts, method="copy-suppression share", head=str(site), seed=seed)
    return CopySuppressionShare(site, ablated, kept, control, source)


class _OneHead:
    """A head, its mean output over some tokens, and what its parts do to the predictions."""

    def __init__(self, model: Model, head: Head, tokens: Int[Tensor, "prompts pos"]) -> None:
        self.weights, self.replay, self.tokens = Weights(model), replay_of(model), tokens
        require_patterns(self.replay)
        self.layer, self.head = head.layer, head.head
        self.w_o = self.weights.w_o(self.layer)[self.head]
        self.mean_unembedding = mean_unembedding(self.weights)
        means = [self._share_of("z", self._run(i), model.geometry.n_heads) for i in self._prompts]
        self.mean = torch.stack([each.mean(dim=0) for each in means]).mean(dim=0)

    @property
    def _prompts(self) -> range:
        return range(len(self.tokens))

    def _run(self, prompt: int) -> CleanRun:
        return self.replay.clean(self.tokens[prompt : prompt + 1], ["z", "v"])

    def _share_of(self, kind: str, run: CleanRun, heads: int) -> Float[Tensor, "pos d_head"]:
        """The head's features of a part that is divided into `heads`."""
        number = self.head * heads // self.weights.model.geometry.n_heads
        whole = run.parts[kind][self.layer][0].to(self.weights.dtype)
        return whole.unflatten(-1, (heads, -1))[:, number]

    def _behind(self, added: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
        """What norms behind the attention make of what its output projection gives."""
        for module in self.replay.body.blocks[self.layer].after_heads[1:]:
            added = module(added.to(self.weights.model.dtype)).to(self.weights.dtype)
        return added

    def _logits(self, stream: Float[Tensor, "n d_model"]) -> Float[Tensor, "n vocab"]:
        return self.replay.logits(stream.to(self.weights.model.dtype)).to(self.weights.dtype)

    def suppressed(self) -> Int[Tensor, "prompts pos words"]:
        """The tokens that the head, attending to each token alone, lowers most; on the CPU."""
        weights, model = self.weights, self.weights.model
        every, which = self.tokens.unique(return_inverse=True)
        lowest = []
        for some in every.split(max(1, LOGITS // model.geometry.d_vocab)):
            stream = weights.embed(some)
            if self.layer > 0 and self.replay.has("mlp_out"):
                stream = stream + weights.first_mlp(stream)
            value = weights.attn_norm(self.layer, stream) @ weights.w_v(self.layer)[self.head]
            added = self._behind(value @ self.w_o)
            lowered = self._logits(added) - self._logits(torch.zeros_like(added[:1]))
            lowest.append(lowered.topk(SUPPRESSED, largest=False).indices.cpu())
        return torch.cat(lowest)[which]

    def divergences(
        self, prompt: int, words: list[Int[Tensor, "pos words"]]
    ) -> Float[Tensor, " kinds"]:
        """KL(clean || edited), mean over positions: nothing kept, then each choice of words."""
        model, run = self.weights.model, self._run(prompt)
        shape, length = model.geometry, run.length
        bare = PromptSet.from_tokens(self.tokens[prompt : prompt + 1], answer=[0])
        name = f"blocks.{self.layer}.attn.hook_pattern"
        pattern = capture(model, bare, name)[name][0, self.head].to(run.tokens.device)
        values = self._share_of("v", run, shape.n_kv_heads) - self.mean
        z = self._share_of("z", run, shape.n_heads)
        projection = self.replay.body.blocks[self.layer].after_heads[0]
        attended = projection(run.parts["z"][self.layer][0]).to(self.weights.dtype)
        end = run.stream[-1][0].to(self.weights.dtype)
        norm = frozen(self.replay.body.final_norm, end, self.weights)
        totals = torch.zeros(1 + len(words), dtype=torch.float64)
        for to in torch.arange(length).split(max(1, LOGITS // (4 * shape.d_vocab))):
            before = self._logits(run.stream[self.layer][0, to])
            clean = self._logits(end[to])
            weighed = pattern[to].to(values)
            kept = [
                self._kept(to, before, weighed, values @ self.w_o, each, norm) for each in words
            ]
            for kind, part in enumerate([torch.zeros_like(end[to]), *kept]):
                change = (self.mean - z[to]) @ self.w_o + part
                moved = self._behind(attended[to] + change) - self._behind(attended[to])
                totals[kind] += kl(self._logits(end[to] + moved), clean).double().sum().cpu()
        return totals / length

    def _kept(
        self,
        to: Int[Tensor, " destinations"],
        before: Float[Tensor, "destinations vocab"],
        weighed: Float[Tensor, "destinations pos"],
        added: Float[Tensor, "pos d_model"],
        words: Int[Tensor, "pos words"],
        norm: Frozen,
    ) -> Float[Tensor, "destinations d_model"]:
        """What the likeliest pairs of a source and a word that it suppresses keep of the output.

        The pairs of a destination that share a source span a space; a Gram matrix in which other
        pairs are orthogonal projects each source onto its own.
        """
        device = before.device
        source = torch.arange(len(words), device=device).repeat_interleave(words.shape[1])
        word = words.flatten().to(device)
        seen = source <= to[:, None].to(device)
        likely = before[:, word].masked_fill(~seen, -torch.inf)
        best, pairs = (each[:, :TOP] for each in likely.sort(descending=True, stable=True))
        reads = (self.weights.w_u(word).T - self.mean_unembedding) * norm.gain
        if norm.centred:
            reads = reads - reads.mean(dim=-1, keepdim=True)
        spanned = reads[pairs] * ~best.isneginf()[..., None]
        own = source[pairs]
        gram = spanned @ spanned.mT * (own[..., None] == own[..., None, :])
        along = (spanned * added[own]).sum(dim=-1) * weighed.gather(1, own)
        shares = torch.linalg.pinv(gram, hermitian=True) @ along[..., None]
        return (shares * spanned).sum(dim=1)
