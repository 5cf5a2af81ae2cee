"""`Lens`: what each point of the residual stream says through the model's own unembedding."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.engine.replay import replay_of
from interp.errors import LensError
from interp.models import Model
from interp.provenance import provenance


@dataclass(frozen=True, eq=False)
class Lens(Displayed):
    """A translator for each point of the stream, in front of final norm and unembedding.

    Layer 0 is the embedding and layer l what leaves the l-th block. Layer l says
    unembed(norm(h + A_l h + b_l)); the last layer is the model's own output and has no translator.

    Attributes:
        kind: "logit" (nostalgebraist 2020), "tuned" (Belrose et al. 2023), or what was made of one.
        weight: A_l of each layer but the last; None for the identity, a logit lens.
        bias: b_l of each layer but the last; None for a logit lens.
        provenance: Model, weights, final norm and unembedding that it belongs to; how it was made.

    Raises:
        LensError: Weights without biases, or of other sizes than they.
    """

    kind: str
    provenance: dict[str, Any] = field(repr=False)
    weight: Float[Tensor, "layer d_model d_model"] | None = field(default=None, repr=False)
    bias: Float[Tensor, "layer d_model"] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        found = [None if each is None else tuple(each.shape) for each in (self.weight, self.bias)]
        fit = found[0] is None or (len(found[0]) == 3 and found[0][1] == found[0][2])
        if not fit or found[1] != (None if found[0] is None else found[0][:2]):
            raise LensError(
                f"A lens has weights [layer, d_model, d_model] and biases [layer, d_model], or "
                f"neither; these are {found[0]} and {found[1]}."
            )

    def translate(
        self, hidden: Float[Tensor, "rows d_model"], layer: int
    ) -> Float[Tensor, "rows d_model"]:
        """What takes the place of a layer's stream in front of the final norm."""
        if self.weight is None or self.bias is None or layer == len(self.weight):
            return hidden
        weight, bias = (each[layer].to(hidden.device) for each in (self.weight, self.bias))
        wide = hidden.to(torch.promote_types(hidden.dtype, weight.dtype))
        return (wide + (wide @ weight.to(wide).T + bias.to(wide))).to(hidden.dtype)

    def logits(
        self, model: Model, hidden: Float[Tensor, "rows d_model"], layer: int
    ) -> Float[Tensor, "rows vocab"]:
        """The logits that a layer's stream gives.

        Raises LensError for another model or a layer that does not exist.
        """
        self.require(model)
        require_layer(model, layer)
        translated = self.translate(hidden.to(model.device, model.dtype), layer)
        return replay_of(model).logits(translated)

    def require(self, model: Model) -> None:
        """Raise LensError unless it belongs to these weights."""
        if self.provenance.get("weights_hash") == model.weights_hash:
            return
        same = self.provenance.get("unembed_hash") == unembed_hash(model)
        raise LensError(
            f"This {self.kind} lens belongs to {self.provenance.get('model')} (weights "
            f"{self.provenance.get('weights_hash')}), and {model.id} has weights "
            f"{model.weights_hash} and {'the same' if same else 'another'} unembedding; make a "
            "lens with this model, in this dtype."
        )

    def __repr__(self) -> str:
        return f"Lens({self.kind}, {self.provenance.get('model')})"


def logit_lens(model: Model) -> Lens:
    """The lens without translators: every layer is read as if it were the last.

    >>> import interp
    >>> logit_lens(interp.load("induction"))
    Lens(logit, induction)
    """
    return Lens("logit", made_for(model, method="logit lens"))


def made_for(model: Model, **how: Any) -> dict[str, Any]:
    """The provenance of a lens of this model."""
    return provenance(model, unembed_hash=unembed_hash(model), **how)


def unembed_hash(model: Model) -> str:
    """16 hexadecimal digits that change with the final norm or the unembedding, in any dtype."""
    body = replay_of(model).body
    digest = hashlib.sha256()
    for module in (body.final_norm, body.unembed):
        for name, tensor in sorted({} if module is None else module.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().float().contiguous().numpy().data)
    return digest.hexdigest()[:16]


def require_layer(model: Model, layer: int) -> None:
    """Raise LensError unless the model has this point of the stream."""
    if not 0 <= layer <= model.geometry.n_layers:
        raise LensError(
            f"Layer {layer} does not exist; {model.id} has 0, the embedding, to "
            f"{model.geometry.n_layers}, what leaves the last block."
        )
