"""Do the hooks tell the truth? Three questions, asked once at load with a few short forwards.

1. Do the bridge and the module give the same logits?
2. Does an edit at each kind of hook, in the first and the last layer, move the logits? (Where
   these weights make no use of the place, is it so with random weights in their stead?)
3. Do left- and right-padded prompts get the logits of the prompts alone, from both?

Logits agree when, at every position, the root mean square of their difference over the vocabulary
is below sqrt(eps) times the standard deviation of the logits, eps being that of the dtype (of
float32 for float64, since many norms compute in float32): half of the digits that the dtype holds,
.00035 in float32 and .09 in bfloat16. Rounding stays far below, a wrong mask or position far above.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.display import Displayed
from interp.errors import CheckFailed, InterpError, one_line
from interp.models.quantised import is_plain
from interp.saved import Saved, register

if TYPE_CHECKING:
    from interp.models.model import Model
else:
    Model = Any  # model.py imports this file

KINDS = (
    "hook_embed",
    "hook_resid_pre",
    "attn.hook_q",
    "attn.hook_k",
    "attn.hook_v",
    "attn.hook_rot_q",
    "attn.hook_rot_k",
    "attn.hook_attn_scores",
    "attn.hook_pattern",
    "attn.hook_z",
    "hook_attn_out",
    "hook_resid_mid",
    "mlp.hook_post",
    "hook_mlp_out",
    "hook_resid_post",
)
# What some architectures lack: parallel blocks the middle of the residual stream, attention-only
# models the MLP, models with learned or ALiBi positions the rotated queries and keys.
_ROTATED = {"attn.hook_rot_q", "attn.hook_rot_k"}
_MAY_LACK = {"hook_resid_mid", "mlp.hook_post", "hook_mlp_out"} | _ROTATED

_SHOWN_ONLY = {"attn.hook_pattern", "attn.hook_attn_scores"}
# Hooks whose edits TransformerLens 4.3 ignores, found by running this check: these models compute
# their attention themselves, and the hook shows a copy of a result, or is never reached.
LIMITS: dict[str, set[str]] = {
    "CodeGenForCausalLM": _ROTATED,
    "FalconForCausalLM": _ROTATED,
    "GPTJForCausalLM": _SHOWN_ONLY | _ROTATED,
    "GPTNeoForCausalLM": _SHOWN_ONLY,
    "GPTNeoXForCausalLM": _ROTATED,
    "OPTForCausalLM": _SHOWN_ONLY,
    "OpenAIGPTLMHeadModel": {"hook_resid_post"},
    "Phi3ForCausalLM": _ROTATED,
    "TransformerLensNative": {"attn.hook_attn_scores"} | _ROTATED,
}

RAISES = "an edit raises"
IN_VAIN = "an edit at"
Status = Literal["ok", "failed", "limit", "absent"]


@register
@dataclass(frozen=True)
class CheckRow:
    """One question and its answer.

    `limit`: a hook whose edits are known to do nothing or that refuses them with an error; or a
    padding that gives no numbers.
    `absent`: a part that the architecture does not have.
    """

    name: str
    status: Status
    detail: str

    @property
    def ok(self) -> bool:
        return self.status != "failed"


@dataclass(frozen=True)
class CheckReport(Saved, Displayed):
    """What `Model.check()` found, one row a question."""

    model: str
    rows: tuple[CheckRow, ...]

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)

    @property
    def limits(self) -> dict[str, str]:
        """Kinds of hook that cannot be edited in this architecture, and what happens instead."""
        return {row.name: row.detail for row in self.rows if row.status == "limit"}

    @property
    def absent(self) -> tuple[str, ...]:
        """Kinds of hook that the architecture has no place for."""
        return tuple(row.name for row in self.rows if row.status == "absent")

    def raise_if_failed(self) -> None:
        """Raise CheckFailed naming every failed row, and by how much it failed."""
        failed = [f"{row.name}: {row.detail}" for row in self.rows if not row.ok]
        if failed:
            raise CheckFailed(
                f"the hooks of {self.model} do not tell the truth ({'; '.join(failed)}); use "
                f"another model, or load with check=False and stay clear of these."
            )

    def to_frame(self) -> pd.DataFrame:
        """One row a question: name, status, detail."""
        return pd.DataFrame([vars(row) for row in self.rows], columns=["name", "status", "detail"])

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = [f"  {row.name:{width}}  {row.status:6}  {row.detail}" for row in self.rows]
        return "\n".join([f"check of {self.model}: {'passed' if self.ok else 'FAILED'}", *lines])


def check_model(model: Model) -> CheckReport:
    """Ask the three questions of a model; raises CheckFailed unless each is answered well."""
    random = torch.Generator().manual_seed(0)
    try:
        shape = (2, min(8, model.geometry.n_ctx))
        tokens = torch.randint(model.geometry.d_vocab, shape, generator=random).to(model.device)
        answers = [
            _same_logits(model, tokens),
            *_live_hooks(model, tokens),
            *_padding(model, tokens),
        ]
    except InterpError:
        raise
    except Exception as error:  # whatever a library makes of a config of nothing
        raise CheckFailed(
            f"{model.id} cannot run a few random tokens through module and bridge "
            f"({one_line(error)}); load it with check=False, and use model.hf."
        ) from error
    report = CheckReport(model.id, tuple(answers))
    report.raise_if_failed()
    return report


NO_LEFT_PADDING = (
    "NaN: the bridge takes its softmax in float32, where the mask of float64 overflows; pad on the "
    "right"
)


def _same_logits(model: Model, tokens: Int[Tensor, "prompts pos"]) -> CheckRow:
    error = _disagreement(_bridge_logits(model, tokens), model.logits(tokens))
    return _agreement("bridge logits = module logits", error, model.dtype)


def _padding(model: Model, tokens: Int[Tensor, "prompts pos"]) -> list[CheckRow]:
    """Compare padded prompts, cut to about half the length, with the prompts alone."""
    prompts, length = tokens.shape
    short = max(1, length * 5 // 8)
    alone = model.logits(tokens[:, :short])
    rows = []
    for side in ("left", "right"):
        mask = torch.arange(length, device=tokens.device).expand(prompts, length) < short
        mask = mask.flip(1) if side == "left" else mask
        padded = torch.full_like(tokens, min(model.pad_id, model.geometry.d_vocab - 1))
        padded[mask] = tokens[:, :short].flatten()
        for who, logits in (
            ("module", model.logits(padded, mask=mask)),
            ("bridge", _bridge_logits(model, padded, mask)),
        ):
            error = _disagreement(logits[mask].view_as(alone), alone)
            question = f"{side} padding, {who}"
            if math.isnan(error) and (side, who, model.dtype) == ("left", "bridge", torch.float64):
                rows.append(CheckRow(question, "limit", NO_LEFT_PADDING))
            else:
                rows.append(_agreement(question, error, model.dtype))
    return rows


def _live_hooks(model: Model, tokens: Int[Tensor, "prompts pos"]) -> list[CheckRow]:
    """Edit every kind of hook, in the first and last layer, and see whether the logits move."""
    layers = sorted({0, model.geometry.n_layers - 1})
    names = {kind: [f"blocks.{layer}.{kind}" for layer in layers] for kind in KINDS}
    names["hook_embed"] = ["hook_embed"]
    points = model.bridge.hook_dict
    present = [name for kind in KINDS for name in names[kind] if name in points]
    effects = _effects(model, tokens[:1, :4], present)
    effects |= _blame_the_weights(model, tokens[:1, :4], effects)
    known = LIMITS.get(model.geometry.architecture, set())
    rows = []
    for kind, places in names.items():
        found = [effects[name] for name in places if name in points]
        dead = [effect for effect in found if isinstance(effect, str)]
        excused = kind in known or any(RAISES in effect for effect in dead)  # known, or loud
        if not found:
            status: Status = "absent" if kind in _MAY_LACK else "failed"
            rows.append(CheckRow(kind, status, "the bridge has no such hook"))
        elif kind == "mlp.hook_post" and _is_mlp_out(points, places):
            rows.append(CheckRow(kind, "limit", "the same point as hook_mlp_out (experts)"))
        elif dead:
            rows.append(CheckRow(kind, "limit" if excused else "failed", dead[0]))
        elif kind == "hook_resid_mid" and not _mid_is_the_stream(model, tokens[:1, :4]):
            rows.append(
                CheckRow(kind, "limit", "an edit reaches the MLP, not the stream beside it")
            )
        else:
            moved = ", ".join(_said(effect) for effect in found)
            rows.append(CheckRow(kind, "ok", f"an edit moves the logits by {moved}"))
    return rows


def _said(effect: float | str) -> str:
    return f"{effect:.2g}" if effect else "0 (these weights make no use of it)"


def _mid_is_the_stream(model: Model, tokens: Int[Tensor, "1 pos"]) -> bool:
    """Whether an edit at `hook_resid_mid` reaches what the MLP's output is added to.

    TransformerLens 4.3 puts that hook on the input of the norm, so that it does not.
    """
    edit = _edit_row(0, "hook_resid_mid", set())
    names = ["blocks.0.hook_resid_post", "blocks.0.hook_mlp_out"]
    streams = []
    for hooks in ([], [("blocks.0.hook_resid_mid", edit)]):
        with torch.no_grad(), model.bridge.hooks(fwd_hooks=hooks), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _, cache = model.bridge.run_with_cache(tokens, names_filter=names)
        streams.append(cache[names[0]] - cache[names[1]])
    return not torch.allclose(streams[0], streams[1], rtol=1e-2, atol=1e-2)


def _blame_the_weights(
    model: Model, tokens: Int[Tensor, "1 pos"], effects: dict[str, float | str]
) -> dict[str, float | str]:
    """The hooks that fire in vain with these weights but not with random ones, as moved by 0.

    Such a hook is sound, and the weights make no use of the place: a head or an MLP whose output
    weights are all zero.
    """
    known = LIMITS.get(model.geometry.architecture, set())
    vain = [
        name
        for name, effect in effects.items()
        if isinstance(effect, str)
        and effect.startswith(IN_VAIN)
        and re.sub(r"^blocks\.\d+\.", "", name) not in known
    ]
    if not vain:
        return {}
    with _random_weights(model.hf):
        effects = _effects(model, tokens, vain)
    return {name: 0.0 for name in vain if isinstance(effects[name], float)}


@contextmanager
def _random_weights(module: nn.Module) -> Iterator[None]:
    """Noise on every weight of the module, and so of its bridge; exactly undone afterwards.

    Weights that are quantised, or kept elsewhere until they are used, stay as they are.
    """
    kept = {
        parameter: parameter.detach().clone()
        for parameter in module.parameters()
        if is_plain(parameter)
    }
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for parameter in kept:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.1 * noise.to(parameter.device, parameter.dtype))
        yield
    finally:
        with torch.no_grad():
            for parameter, value in kept.items():
                parameter.copy_(value)


def _effects(
    model: Model, tokens: Int[Tensor, "1 pos"], names: list[str]
) -> dict[str, float | str]:
    """How far an edit at each hook moves the logits, or in words why it does not.

    One forward for all hooks: row i of the batch carries the edit at names[i], the last row none.
    """
    rows = tokens.expand(len(names) + 1, -1)
    fired: set[str] = set()
    hooks: list[Any] = [(name, _edit_row(i, name, fired)) for i, name in enumerate(names)]
    try:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):  # the report says it
            logits = model.bridge.run_with_hooks(
                rows, fwd_hooks=hooks, attention_mask=torch.ones_like(rows)
            )
    except Exception as error:  # whatever TransformerLens raises: find the hook that it is about
        if len(names) == 1:
            return {names[0]: f"{RAISES} {type(error).__name__} ({error})"}
        return {k: v for name in names for k, v in _effects(model, tokens, [name]).items()}
    logits = logits.float()
    rounding = torch.finfo(model.dtype).eps * logits[-1].abs().max().item()
    effects: dict[str, float | str] = {}
    for i, name in enumerate(names):
        moved = (logits[i] - logits[-1]).abs().max().item()
        if name not in fired:
            effects[name] = f"{name} never fires"
        elif moved <= rounding:  # an edit so large that it ends in NaN has moved them too
            effects[name] = f"{IN_VAIN} {name} moves the logits by {moved:.1g}"
        else:
            effects[name] = moved
    return effects


def _edit_row(row: int, name: str, fired: set[str]) -> Callable[..., Tensor]:
    """A hook that adds noise, large against every value, to one row of the batch."""

    def edit(value: Tensor, hook: Any) -> Tensor:
        fired.add(name)
        target = value[row]
        generator = torch.Generator().manual_seed(row)
        noise = torch.randn(target.shape, generator=generator).to(target.device, target.dtype)
        size = target.abs()
        unmasked = size[size < torch.finfo(size.dtype).max / 2]  # a masked score is -max
        edited = value.clone()
        edited[row] = target + noise * 10 * unmasked.max().clamp(min=1)
        return edited

    return edit


def _is_mlp_out(points: dict[str, Any], places: list[str]) -> bool:
    return any(
        points.get(name) is points.get(name.replace("mlp.hook_post", "hook_mlp_out"))
        for name in places
    )


def _bridge_logits(
    model: Model,
    tokens: Int[Tensor, "prompts pos"],
    mask: Bool[Tensor, "prompts pos"] | None = None,
) -> Float[Tensor, "prompts pos vocab"]:
    attended = torch.ones_like(tokens) if mask is None else mask.long()
    with torch.no_grad():
        return model.bridge(tokens, attention_mask=attended)


def _disagreement(
    found: Float[Tensor, "prompts pos vocab"], expected: Float[Tensor, "prompts pos vocab"]
) -> float:
    """The largest error over positions, as a share of the spread of the expected logits."""
    error = (found.double() - expected.double()).square().mean(dim=-1).sqrt().max()
    return (error / expected.double().std()).item()


def _agreement(name: str, error: float, dtype: torch.dtype) -> CheckRow:
    eps = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    detail = f"differ by {error:.1e} of the spread of the logits, {eps**0.5:.1e} allowed"
    return CheckRow(name, "ok" if error <= eps**0.5 else "failed", detail)
