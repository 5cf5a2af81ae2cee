"""Where the values of interventions come from: means, other prompts, counterfactuals, the user."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.activations import Activations, capture
from interp.engine.anatomy import kind_of
from interp.engine.averages import token_keys
from interp.engine.clean import CleanRun
from interp.engine.groups import Group
from interp.engine.interventions import (
    Add,
    Edit,
    Intervention,
    Mean,
    Operation,
    Patch,
    Resample,
    Scale,
    Set,
    Zero,
)
from interp.engine.jobs import Change, Job, Values
from interp.engine.replay import Replay, close
from interp.errors import InterventionError, PromptError, SiteError
from interp.prompts import PromptSet
from interp.sites import Head, K, Neuron, Pattern, Q, Resid, Site, V, validate

Patterns = list[Float[Tensor, "prompts head queries keys"]]
Means = dict[str, list[Float[Tensor, "keys features"]]]
"""For each part and layer the mean over the tokens of each key."""


class Sources:
    """Gives every edit its values, group by group.

    Means are taken over all groups when one is first asked for; runs of counterfactuals and of
    other prompts when a group is opened.
    """

    def __init__(
        self,
        replay: Replay,
        prompts: PromptSet,
        groups: Sequence[Group],
        interventions: Iterable[Intervention],
    ) -> None:
        self.replay = replay
        self.prompts = prompts
        self.groups = groups
        edits = [edit for intervention in interventions for edit in intervention.edits]
        for edit in edits:
            _require_place(edit.site, replay)
        self.kinds: dict[Operation, set[str]] = {}
        for edit in edits:
            kinds = self.kinds.setdefault(edit.operation, set())
            if not isinstance(edit.site, Pattern):
                kinds.add(kind_of(edit.site))
        self.tokens: dict[Operation, Int[Tensor, "prompts pos"]] = {}
        for operation in self.kinds:
            source = _source_tokens(operation, prompts)
            if source is not None:
                self.tokens[operation] = source
            if isinstance(operation, Patch) and isinstance(operation.source, Activations):
                _require_same_model(operation.source, replay, prompts)
        self.keys = {
            operation.over: token_keys(prompts, operation.over)
            for operation in self.kinds
            if isinstance(operation, Mean)
        }
        self._means: dict[Mean, Means] = {}

    def means(self, operation: Mean) -> Means:
        """What a mean is at every part that it stands in for."""
        if operation not in self._means:
            keys, kinds = self.keys[operation.over], self.kinds[operation]
            self._means[operation] = self._averaged(keys, kinds)
        return self._means[operation]

    def open(self, group: Group) -> Opened:
        """The values for one group."""
        return Opened(self, group)

    def _averaged(self, keys: Int[Tensor, "prompts pos"], kinds: set[str]) -> Means:
        count = int(keys.max()) + 1
        counts = torch.zeros(count, dtype=torch.float64)
        totals: dict[str, list[Tensor]] = {}
        layers = range(self.replay.n_layers)
        for group in self.groups:
            own = group.cut(keys).flatten()
            counts += torch.bincount(own, minlength=count)
            run = self.replay.clean(group.tokens, kinds)
            for kind in kinds:
                for layer in layers:
                    rows = run.near(layer, kind).flatten(0, 1).double()
                    sums = totals.setdefault(kind, [])
                    if layer == len(sums):
                        sums.append(rows.new_zeros(count, rows.shape[1]))
                    sums[layer].index_add_(0, own.to(rows.device), rows)
        dtype = self.replay.model.dtype
        return {
            kind: [(each / counts[:, None].to(each.device)).to(dtype) for each in sums]
            for kind, sums in totals.items()
        }


class Opened:
    """The jobs of one group, and their values, which are made when first asked for."""

    def __init__(self, sources: Sources, group: Group) -> None:
        self.sources, self.group = sources, group
        self.tokens = {operation: group.cut(tokens) for operation, tokens in sources.tokens.items()}
        self.runs: dict[Operation, CleanRun] = {}
        self.patterns: dict[Operation, Patterns] = {}
        self.firsts: dict[tuple[str | int | None, Operation | None], int | None] = {}
        self.columns: dict[tuple[str | int, torch.device], Tensor] = {}

    def close(self) -> None:
        """Let go of the activations."""
        self.runs.clear()
        self.patterns.clear()

    def jobs(
        self, interventions: Sequence[Intervention], only: Int[Tensor, " some"] | None = None
    ) -> list[Job]:
        """Those of the interventions that change anything in this group; of `only` these."""
        wanted = range(len(interventions)) if only is None else only.tolist()
        made = (self.job(index, interventions[index]) for index in wanted)
        return [job for job in made if job is not None]

    def job(self, index: int, intervention: Intervention) -> Job | None:
        """An intervention on this group; None if it leaves every activation as it is.

        Raises SiteError for a site, position or role that does not exist here.
        """
        changes: dict[tuple[int, str], list[Change]] = {}
        starts = []
        for edit in intervention.edits:
            first = self._first(edit)
            if first is None:
                continue
            starts.append(first)
            change = self.change(edit)
            changes.setdefault((change.layer, change.kind), []).append(change)
        return Job(index, changes, min(starts), len(self.group)) if changes else None

    def _first(self, edit: Edit) -> int | None:
        """The first column that an edit can change, found once for all edits at its position."""
        source = edit.operation if edit.operation in self.tokens else None
        if (edit.position, source) not in self.firsts:
            touched = self._touched(edit).any(dim=0)
            first = int(touched.int().argmax()) if touched.any() else None
            self.firsts[edit.position, source] = first
        return self.firsts[edit.position, source]

    def _columns(self, position: str | int, device: torch.device) -> Bool[Tensor, "prompts pos"]:
        """Where a position is, on a device; many edits share it."""
        if (position, device) not in self.columns:
            self.columns[position, device] = self.group.where(position).to(device)
        return self.columns[position, device]

    def _touched(self, edit: Edit) -> Bool[Tensor, "prompts pos"]:
        """Where an edit can make a difference: not before the source's tokens do."""
        group = self.group
        everywhere = torch.ones(len(group), group.length, dtype=torch.bool)
        touched = everywhere if edit.position is None else group.where(edit.position)
        if edit.operation in self.tokens:
            differs = self.tokens[edit.operation] != group.tokens
            touched = touched & (differs.cumsum(dim=-1) > 0)
        return touched

    def place(self, edit: Edit) -> tuple[int, str]:
        """Layer and part of an edit."""
        return edit.site.layer, kind_of(edit.site)

    def change(self, edit: Edit) -> Change:
        """What an edit does to this group."""
        site, shape = edit.site, self.sources.replay.model.geometry
        kind = kind_of(site)
        part = self.sources.replay.body.part(site)
        action, value = self._action(edit)
        columns = None
        if edit.position is not None:
            columns = self._columns(edit.position, self.sources.replay.devices[site.layer])
        return Change(
            layer=site.layer,
            kind=kind,
            span=self._span(site, part.heads),
            columns=columns,
            action=action,
            value=value,
            group=site.head * shape.n_kv_heads // shape.n_heads if isinstance(site, Pattern) else 0,
        )

    def _span(self, site: Site, heads: int) -> slice:
        if isinstance(site, Neuron):
            size = self.sources.replay.width(site.layer, "neurons")
            if site.neuron >= size:
                raise SiteError(
                    f"{site} is outside the model: its MLP has {size} neurons, 0 to {size - 1}."
                )
            return slice(site.neuron, site.neuron + 1)
        if isinstance(site, Head | Q | K | V | Pattern):
            number = site.group if isinstance(site, K | V) else site.head
            kind = "z" if isinstance(site, Pattern) else kind_of(site)
            size = self.sources.replay.width(site.layer, kind) // heads
            return slice(number * size, (number + 1) * size)
        return slice(None)

    def _action(self, edit: Edit) -> tuple[str, Callable[[], Tensor | float]]:
        operation, site = edit.operation, edit.site
        patterned = isinstance(site, Pattern)
        if isinstance(operation, Zero):
            return "set", lambda: 0.0
        if isinstance(operation, Scale):
            return "scale", lambda: operation.factor
        if isinstance(operation, Add):
            return "add", self._given(site, self._fitting(edit, operation.vector))
        if isinstance(operation, Set):
            value = self._fitting(edit, operation.value)
            return ("attend" if patterned else "set"), self._given(site, value, patterned)
        if isinstance(operation, Patch) and isinstance(operation.source, Activations):
            stored = operation.source[site.hook]
            if isinstance(site, Pattern):
                return "attend", self._given(site, stored[:, site.head], patterned)
            span = self._span(site, self._heads(site))
            return "set", self._given(site, stored.flatten(2)[..., span])
        if isinstance(site, Pattern):
            return "attend", lambda: self._patterns(operation)[site.layer][:, site.head]
        kind, span = kind_of(site), self._span(site, self._heads(site))
        if isinstance(operation, Mean):
            return "set", lambda: self._mean(operation, site.layer, kind, span)
        return "set", lambda: self._run(operation).near(site.layer, kind)[..., span]

    def _mean(
        self, operation: Mean, layer: int, kind: str, span: slice
    ) -> Float[Tensor, "*prompts_pos features"]:
        """A vector, or one for each prompt and position where means differ."""
        means = self.sources.means(operation)[kind][layer][:, span]
        if len(means) == 1:
            return means[0]
        return means[self.group.cut(self.sources.keys[operation.over]).to(means.device)]

    def _run(self, operation: Operation) -> CleanRun:
        if operation not in self.runs:
            sources = self.sources
            kinds = sources.kinds[operation]
            self.runs[operation] = sources.replay.clean(self.tokens[operation], kinds)
        return self.runs[operation]

    def _patterns(self, operation: Operation) -> Patterns:
        if operation not in self.patterns:
            found = patterns_of(self.sources.replay, self.tokens[operation])
            self.patterns[operation] = found
        return self.patterns[operation]

    def _heads(self, site: Site) -> int:
        return self.sources.replay.body.part(site).heads

    def _fitting(self, edit: Edit, value: Tensor) -> Tensor:
        """A tensor of the user's. Raises InterventionError for a shape that the site has not."""
        site, (count, length) = edit.site, self.group.prompts.clean.shape
        if isinstance(site, Pattern):
            allowed = [[length, length], [count, length, length]]
        else:
            replay, span = self.sources.replay, self._span(site, self._heads(site))
            whole = replay.model.geometry.d_model
            if not isinstance(site, Resid):
                whole = replay.width(site.layer, kind_of(site))
            width = len(range(whole)[span])
            allowed = [[width], [count, length, width]]
        if list(value.shape) not in allowed:
            raise InterventionError(
                f"A tensor of shape {list(value.shape)} cannot {edit.operation.name} {site}; give "
                f"one of shape {allowed[0]}, or {allowed[1]} for each prompt and position."
            )
        return value

    def _given(self, site: Site, value: Tensor, square: bool = False) -> Callable[[], Tensor]:
        """A tensor of the user's: a vector, or one for each prompt and position of the set."""
        replay, group = self.sources.replay, self.group
        if square:
            rows, columns = group.rows[:, None, None], group.columns
            whole = value.cpu().expand(len(group.prompts), -1, -1)
            mine = whole[rows, columns[:, :, None], columns[:, None, :]]
        elif value.ndim == 1:
            mine = value
        else:
            mine = group.cut(value.cpu())
        placed = mine.to(replay.devices[site.layer], replay.model.dtype)
        return lambda: placed


def _source_tokens(operation: Operation, prompts: PromptSet) -> Tensor | None:
    """Tokens of the run that an operation takes its values from, laid out as the prompts are."""
    if isinstance(operation, Resample):
        return prompts.clean.cpu()[_partners(prompts, operation.seed)]
    if not isinstance(operation, Patch) or isinstance(operation.source, Activations):
        return None
    if isinstance(operation.source, PromptSet):
        source = operation.source
        if source.clean.shape != prompts.clean.shape or not torch.equal(
            source.mask.cpu(), prompts.mask.cpu()
        ):
            raise PromptError(
                f"The source has {len(source)} prompts of {source.clean.shape[1]} columns and they "
                f"are patched into {len(prompts)} of {prompts.clean.shape[1]}; give as many, each "
                "as long as the prompt at its place and padded alike."
            )
        tokens = source.clean.cpu()
    elif operation.source == "corrupt":
        if prompts.corrupt is None:
            raise PromptError(
                "Patching needs a counterfactual of each prompt and these have none; make them "
                "with corrupt=, or give a source."
            )
        tokens = prompts.corrupt.cpu()
    else:
        raise InterventionError(
            f"{operation.source!r} is no source; use 'corrupt', a PromptSet or Activations."
        )
    if torch.equal(tokens[prompts.mask.cpu()], prompts.clean.cpu()[prompts.mask.cpu()]):
        raise InterventionError(
            "The source has the same tokens as the prompts, so that patching would change nothing; "
            "give other prompts."
        )
    return tokens


def _partners(prompts: PromptSet, seed: int) -> Int[Tensor, " prompts"]:
    """For each prompt another of the same length."""
    lengths = prompts.mask.cpu().sum(dim=-1)
    generator = torch.Generator().manual_seed(seed)
    partners = torch.empty(len(prompts), dtype=torch.long)
    for length in lengths.unique():
        same = (lengths == length).nonzero()[:, 0]
        if len(same) < 2:
            raise PromptError(
                f"Prompt {int(same[0])} is the only one of {int(length)} tokens, so that there is "
                "none to resample from; give several of each length, or use Mean."
            )
        order = same[torch.randperm(len(same), generator=generator)]
        partners[order] = order.roll(1)
    return partners


def _require_same_model(source: Activations, replay: Replay, prompts: PromptSet) -> None:
    model = replay.model
    if source.provenance["weights_hash"] != model.weights_hash:
        raise InterventionError(
            f"The activations come from {source.provenance['model']} with other weights than "
            f"{model.id}; capture them from this model."
        )
    if source.mask.shape != prompts.mask.shape or not torch.equal(
        source.mask.cpu(), prompts.mask.cpu()
    ):
        raise InterventionError(
            f"The activations are those of {list(source.mask.shape)} prompts and columns and the "
            f"prompts have {list(prompts.mask.shape)}; capture all positions of aligned prompts."
        )


def _require_place(site: Site, replay: Replay) -> None:
    """Raise SiteError for a site that the model does not have."""
    validate(site, replay.model.geometry)
    replay.body.part(site)
    if isinstance(site, Pattern):
        require_patterns(replay)


@torch.no_grad()
def require_patterns(replay: Replay) -> None:
    """Raise SiteError unless the output of every head is its pattern times the values.

    It is not where values are clipped, or the heads' outputs are gated.
    """
    if replay.weighs is None:
        replay.weighs = replay.tried(lambda: _patterns_agree(replay))
    if not replay.weighs:
        raise SiteError(
            f"The heads of {replay.model.id} give something else than their patterns times the "
            "values (which may be clipped or gated), so that patterns cannot be put in; use the "
            "heads themselves."
        )


def _patterns_agree(replay: Replay) -> bool:
    tokens = replay.sample()
    run, patterns = replay.clean(tokens, ("v", "z")), patterns_of(replay, tokens)
    for layer, z in enumerate(run.parts["z"]):
        values = Values(run.at(layer, "v"), replay.model.geometry.n_kv_heads, 0, patterns[layer])
        values.keep(run.at(layer, "v"))
        if not close(values.attend(z, 0), z):
            return False
    return True


def patterns_of(replay: Replay, tokens: Int[Tensor, "prompts pos"]) -> Patterns:
    """Attention patterns of every layer on prompts of one length."""
    some = PromptSet.from_tokens(tokens, answer=[0] * len(tokens))
    found = capture(replay.model, some, "blocks.*.attn.hook_pattern")
    layers = range(replay.n_layers)
    return [found[f"blocks.{layer}.attn.hook_pattern"].to(replay.model.device) for layer in layers]
