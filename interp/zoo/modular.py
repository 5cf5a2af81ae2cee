"""A one-layer transformer that adds modulo a prime, and the run of it that ships with `interp`.

The network of Nanda et al., Progress measures for grokking via mechanistic interpretability
(2023): tokens `a`, `b`, `=`; one layer, no LayerNorm, 4 heads of 32, an MLP of 512 with ReLU, and
the sum read at `=`. Here there are no biases; whether the published network had some in its MLP we
could not confirm. Logits are of the p numbers: `=` is never an answer.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.errors import FileFormatError, ModelError, one_line
from interp.json_file import read_json
from interp.resources import data_dir
from interp.tensor_file import misfit_of, open_tensor_file

PRIME = 113
TRAIN_SHARE = 0.3


class ModularAdder(nn.Module):
    """Reads `a b =` and says (a + b) mod p at `=`.

    The query is that of `=` alone, and a number at one place has one key and one value whatever
    stands at the other: attention is two tables of p rows. What the last position does not read is
    not computed.

    Args:
        p: The modulus. Token p is `=`.
        d_model: Width of the residual stream.
        n_heads: Heads, which share the width among them.
        d_mlp: Neurons.
        seed: Of the initial weights: normal, with variance 1 / d_model, and 1 / p in the
            unembedding.

    >>> ModularAdder(7).logits(torch.tensor([[1, 2], [6, 6]])).shape
    torch.Size([2, 7])
    """

    def __init__(
        self,
        p: int = PRIME,
        *,
        d_model: int = 128,
        n_heads: int = 4,
        d_mlp: int = 512,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.p = p
        d_head = d_model // n_heads
        generator = torch.Generator().manual_seed(seed)

        def weight(*shape: int, width: int = d_model) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator) / math.sqrt(width))

        self.W_E = weight(p + 1, d_model)
        self.W_pos = weight(3, d_model)
        self.W_Q = weight(n_heads, d_model, d_head)
        self.W_K = weight(n_heads, d_model, d_head)
        self.W_V = weight(n_heads, d_model, d_head)
        self.W_O = weight(n_heads, d_head, d_model)
        self.W_in = weight(d_model, d_mlp)
        self.W_out = weight(d_mlp, d_model)
        self.W_U = weight(d_model, p, width=p)

    def forward(self, pairs: Int[Tensor, "pairs 2"]) -> Float[Tensor, "pairs p"]:
        """The logits at `=`."""
        return self.logits(pairs)

    def embeddings(self) -> Float[Tensor, "p d_model"]:
        """What each number adds to the stream, without its place."""
        return self.W_E[:-1]

    def logits(self, pairs: Int[Tensor, "pairs 2"]) -> Float[Tensor, "pairs p"]:
        """Logits of the sum; a pair is (a, b), each from 0 to p - 1."""
        middle = self._resid_mid(pairs)
        return (middle + self._neurons(middle) @ self.W_out) @ self.W_U

    def mlp_activations(self, pairs: Int[Tensor, "pairs 2"]) -> Float[Tensor, "pairs d_mlp"]:
        """The neurons at `=`, after ReLU."""
        return self._neurons(self._resid_mid(pairs))

    def untrained(self, *, seed: int = 0) -> ModularAdder:
        """A network of the same sizes before its first step: a control."""
        n_heads, d_model, _ = self.W_Q.shape
        fresh = ModularAdder(
            self.p, d_model=d_model, n_heads=n_heads, d_mlp=len(self.W_out), seed=seed
        )
        return fresh.requires_grad_(False)

    @property
    def weights_hash(self) -> str:
        """First 16 hex digits of the sha256 over names and bytes of the weights."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().float().numpy().tobytes())
        return digest.hexdigest()[:16]

    def _neurons(self, middle: Float[Tensor, "pairs d_model"]) -> Float[Tensor, "pairs d_mlp"]:
        return F.relu(middle @ self.W_in)

    def _resid_mid(self, pairs: Int[Tensor, "pairs 2"]) -> Float[Tensor, "pairs d_model"]:
        """The stream at `=` between attention and MLP."""
        end = self.W_E[-1] + self.W_pos[2]
        numbers = self.W_E[:-1] + self.W_pos[:2, None]  # place, number, d_model
        query = torch.einsum("d, hde -> he", end, self.W_Q) / math.sqrt(self.W_Q.shape[2])
        reads = torch.einsum("he, hde -> dh", query, self.W_K)  # what of the stream is a score
        values = torch.einsum("pnd, hde -> pnhe", numbers, self.W_V).flatten(2)
        own = torch.einsum("d, hde -> he", end, self.W_V)

        scores = numbers @ reads
        of_a, of_b = (F.embedding(pairs[:, place], scores[place]) for place in (0, 1))
        pattern = torch.stack([of_a, of_b, (end @ reads).expand_as(of_a)]).softmax(dim=0)
        of_a, of_b = (
            F.embedding(pairs[:, place], values[place]).unflatten(1, own.shape) for place in (0, 1)
        )
        a, b, equals = pattern[..., None]
        z = a * of_a + b * of_b + equals * own
        return end + z.flatten(1) @ self.W_O.flatten(0, 1)


def all_pairs(p: int) -> Int[Tensor, "pairs 2"]:
    """Every (a, b) in order: the pair (a, b) is row a * p + b.

    >>> all_pairs(2).tolist()
    [[0, 0], [0, 1], [1, 0], [1, 1]]
    """
    numbers = torch.arange(p)
    return torch.cartesian_prod(numbers, numbers)


def sums(p: int) -> Int[Tensor, " pairs"]:
    """The right answer of every pair."""
    return all_pairs(p).sum(dim=1) % p


def in_training(p: int, *, seed: int) -> Bool[Tensor, " pairs"]:
    """The pairs that a run of this seed trains on: a random 30%. The others are its test."""
    n = p * p
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros(n, dtype=torch.bool)
    chosen[torch.randperm(n, generator=generator)[: int(TRAIN_SHARE * n)]] = True
    return chosen


@dataclass(frozen=True)
class ModularRun:
    """A training run of `ModularAdder`: the folder that `interp train modular` leaves.

    Attributes:
        folder: Where its files are.
        seed: Of the initial weights and of the split.
        network: The network at the end.
        steps: Steps whose weights are kept, ascending; the last is that of the network.
        history: One record a logged step: `step`, `train_loss` and `test_loss` (nats),
            `train_accuracy` and `test_accuracy`.
    """

    folder: Path
    seed: int
    network: ModularAdder
    steps: tuple[int, ...]
    history: tuple[dict[str, Any], ...]

    @property
    def trained_on(self) -> Bool[Tensor, " pairs"]:
        """Which of `all_pairs` the run was trained on."""
        return in_training(self.network.p, seed=self.seed)

    def at(self, step: int) -> ModularAdder:
        """The network after a step, one of `steps`."""
        if step not in self.steps:
            near = min(self.steps, key=lambda kept: abs(kept - step))
            raise ModelError(
                f"No weights of step {step} are in {self.folder}; the nearest is {near}."
            )
        if step == self.steps[-1]:
            return self.network
        return _network(self.folder / "checkpoints" / f"step-{step:06}.safetensors")

    def __repr__(self) -> str:
        return (
            f"ModularRun(mod {self.network.p}, seed {self.seed}, {self.steps[-1]} steps, "
            f"weights of {len(self.steps)})"
        )


def load_modular(path: str | Path | None = None) -> ModularRun:
    """The run that ships with `interp`, or that of another folder.

    Args:
        path: What `interp train modular` wrote; the shipped one by default.

    Raises:
        ModelError: The folder holds no finished run.
        FileFormatError: One of its files is broken.

    >>> load_modular().network.p
    113
    """
    folder = Path(path) if path is not None else data_dir() / "modular"
    if not (folder / "history.json").is_file():
        raise ModelError(
            f"{folder} holds no finished run of modular addition (it has no history.json): run "
            "`interp train modular`, or leave path out for the run that is shipped."
        )
    file, way_out = folder / "history.json", "train it again"
    told = read_json(file, way_out=way_out)
    try:
        seed, history = told["settings"]["seed"], tuple(told["log"])
        last = history[-1]["step"]
        kept = sorted(
            int(each.stem.removeprefix("step-"))
            for each in (folder / "checkpoints").glob("step-*.safetensors")
        )
        for name, number in {"seed": seed, "step": last}.items():
            if type(number) is not int or not 0 <= number < 2**63:
                raise ValueError(f"its {name} is {number!r:.80}")
        if not all(isinstance(record, dict) for record in history):
            raise ValueError("its log is no list of records")
    except (ValueError, LookupError, TypeError) as error:
        raise FileFormatError(
            f"{file} is no history of a run ({one_line(error)}); {way_out}."
        ) from error
    network = _network(folder / "model.safetensors")
    return ModularRun(folder, seed, network, (*kept, last), history)


def _network(path: Path) -> ModularAdder:
    with open_tensor_file(path, way_out="train it again") as file:
        weights = file.tensors()
        try:
            n_heads, d_model, d_head = weights["W_Q"].shape
            p, d_mlp = len(weights["W_E"]) - 1, len(weights["W_out"])
            expected = {
                **{"W_E": (p + 1, d_model), "W_pos": (3, d_model), "W_U": (d_model, p)},
                **dict.fromkeys(("W_Q", "W_K", "W_V"), (n_heads, d_model, d_head)),
                **{"W_O": (n_heads, d_head, d_model), "W_in": (d_model, d_mlp)},
                **{"W_out": (d_mlp, d_model)},
            }
            found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
            if found != expected or p < 1 or d_head * n_heads != d_model:
                raise ValueError(f"its shapes are {found}")
            if odd := [name for name, tensor in weights.items() if misfit_of(tensor)]:
                raise ValueError(f"{odd[0]} {misfit_of(weights[odd[0]])}")
            network = ModularAdder(p, d_model=d_model, n_heads=n_heads, d_mlp=d_mlp)
            network.load_state_dict(weights)
        except (LookupError, ValueError, RuntimeError, ArithmeticError) as error:
            raise FileFormatError(
                f"{path} does not hold the weights of a ModularAdder ({one_line(error)}); train it "
                "again."
            ) from error
        return network.eval().requires_grad_(False)
