"""A transformer that learns functions from examples in its context (Garg et al. 2022).

x_1, y_1, x_2, y_2, ..., x_k, y_k, x_q  ->  y_q

A point x is a column of the transformer, and so is a value y; a prediction is read at each x, from
the examples before it. Values have variance 1 in every class of functions, so that an error of 1
is that of predicting zero, and a mean squared error here is the paper's divided by the number of
inputs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import FileFormatError, UnknownModel, did_you_mean, one_line
from interp.json_file import read_json, write_text
from interp.resources import data_dir
from interp.saved import BROKEN, fitted
from interp.tensor_file import misfit_of, open_tensor_file, write_tensor_file

CLASSES = ("linear", "sparse", "relu")
"""Classes of functions."""
SPARSE = 2
"""Inputs that a sparse linear function reads."""
HIDDEN = 4
"""Hidden units of a ReLU network."""
POSITIONS = 0.3
"""Standard deviation of the positions before training: as large as what is read in, so that a value
finds its point; with GPT-2's .02 that takes many times as long."""
FORMAT, VERSION = "interp.Regression", "1"


@dataclass(frozen=True, eq=False)
class Functions:
    """Some functions of one class: linear in the inputs, or in hidden units ReLU(hidden x).

    Attributes:
        kind: "linear", "sparse" or "relu".
        weights: What each feature counts.
        hidden: Weights of the hidden units; None where the features are the inputs.
    """

    kind: str
    weights: Float[Tensor, "functions features"]
    hidden: Float[Tensor, "functions features inputs"] | None = None

    def __len__(self) -> int:
        return len(self.weights)

    def __call__(
        self, x: Float[Tensor, "functions points inputs"]
    ) -> Float[Tensor, "functions points"]:
        """Each function on its own points."""
        features = x if self.hidden is None else (x @ self.hidden.mT).relu()
        return (features @ self.weights[..., None])[..., 0]


def draw_functions(kind: str, n: int, inputs: int, generator: torch.Generator) -> Functions:
    """`n` functions of a class, with values of variance 1 where the inputs are standard normal.

    linear: w ~ N(0, I / inputs); sparse: the same on `SPARSE` inputs at random and zero elsewhere;
    relu: `HIDDEN` units whose weights are N(0, I / inputs), read out by N(0, 2 / HIDDEN).

    >>> draw_functions("sparse", 2, 8, torch.Generator().manual_seed(0)).weights.count_nonzero(-1)
    tensor([2, 2])
    """
    if kind == "relu":
        hidden = torch.randn(n, HIDDEN, inputs, generator=generator) / inputs**0.5
        weights = torch.randn(n, HIDDEN, generator=generator) * (2 / HIDDEN) ** 0.5
        return Functions(kind, weights, hidden)
    if kind not in CLASSES:
        raise UnknownModel(f"No class of functions is {kind!r}: {did_you_mean(kind, CLASSES)}")
    weights = torch.randn(n, inputs, generator=generator)
    read = SPARSE if kind == "sparse" else inputs
    order = torch.rand(n, inputs, generator=generator).argsort(dim=-1)
    return Functions(kind, weights.masked_fill(order >= read, 0.0) / read**0.5)


@dataclass(frozen=True)
class RegressionConfig:
    """Sizes of a model; `examples` is how many a prompt may hold before its query."""

    inputs: int = 5
    examples: int = 15
    layers: int = 4
    heads: int = 4
    width: int = 64


class RegressionModel(nn.Module):
    """GPT-2 between a linear map into its stream and one out of it."""

    def __init__(self, config: RegressionConfig) -> None:
        from transformers import GPT2Config, GPT2Model

        super().__init__()
        self.config = config
        self.read_in = nn.Linear(config.inputs + 1, config.width)
        self.body = GPT2Model(
            GPT2Config(
                vocab_size=1,  # it is never read
                n_positions=2 * config.examples + 1,
                n_embd=config.width,
                n_layer=config.layers,
                n_head=config.heads,
                activation_function="gelu_pytorch_tanh",
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                use_cache=False,
                bos_token_id=None,
                eos_token_id=None,
            )
        )
        nn.init.normal_(self.body.wpe.weight, std=POSITIONS)
        self.body.set_attn_implementation("eager")  # for short rows faster than the fused kernel
        self.read_out = nn.Linear(config.width, 1)

    def forward(
        self, x: Float[Tensor, "prompts points inputs"], y: Float[Tensor, "prompts points-1"]
    ) -> Float[Tensor, "prompts points"]:
        """The prediction at each point, of which the last is the query."""
        points = nn.functional.pad(x, (0, 1))
        values = nn.functional.pad(y[..., None], (self.config.inputs, 0, 0, 1))
        columns = torch.stack([points, values], dim=2).flatten(1, 2)[:, :-1]
        stream = self.body(inputs_embeds=self.read_in(columns)).last_hidden_state
        return self.read_out(stream[:, ::2])[..., 0]

    @property
    def weights_hash(self) -> str:
        """Of all weights, in float32: which model this is."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
        return digest.hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write `config.json`, and the weights in half precision."""
        told = {"format": FORMAT, "version": VERSION, **asdict(self.config)}
        weights = {name: tensor.half() for name, tensor in self.state_dict().items()}
        write_tensor_file(folder / "model.safetensors", weights, {})
        write_text(folder / "config.json", json.dumps(told, indent=2) + "\n")


def load_regression(folder: str | Path | None = None) -> RegressionModel:
    """The model that ships with `interp`, or one that `interp train regression` made.

    Raises:
        FileFormatError: The folder does not hold such a model.
    """
    place = data_dir() / "regression" if folder is None else Path(folder)
    way_out = "make one with `interp train regression`"
    told = read_json(place / "config.json", way_out=way_out)
    with open_tensor_file(place / "model.safetensors", way_out=way_out) as file:
        weights = {name: tensor.float() for name, tensor in file.tensors().items()}
    try:
        if (told.pop("format"), told.pop("version")) != (FORMAT, VERSION):
            raise ValueError(f"not of format {FORMAT} {VERSION}")
        config = fitted(RegressionConfig, **told)
        _require_shapes(config, weights)
        model = RegressionModel(config)
        model.load_state_dict(weights)
    except BROKEN as error:
        raise FileFormatError(
            f"{place} does not hold a regression model ({one_line(error)}); {way_out}."
        ) from error
    return model.eval()


def _require_shapes(config: RegressionConfig, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless a config describes these weights, before its model is built."""
    if min(vars(config).values()) < 1 or config.layers > len(weights):
        raise ValueError(f"sizes of no model: {config}")
    with torch.device("meta"):
        empty = RegressionModel(config).state_dict()
    if {name: each.shape for name, each in empty.items()} != {
        name: each.shape for name, each in weights.items()
    }:
        raise ValueError("its config.json is of other weights")
    if odd := [name for name, tensor in weights.items() if misfit_of(tensor)]:
        raise ValueError(f"{odd[0]} {misfit_of(weights[odd[0]])}")
