"""The model with only its circuits: what takes the place of everything else?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from interp.circuits.circuit import Circuit
from interp.circuits.shape import Shape
from interp.engine.ablation import operation_of
from interp.engine.averages import token_keys
from interp.engine.graph import graph_nodes
from interp.engine.groups import groups
from interp.engine.interventions import Edit, Intervention, Mean, Operation, Set
from interp.engine.memory import largest_group
from interp.engine.optimal import optimal
from interp.engine.replay import replay_of
from interp.engine.sources import Sources
from interp.engine.subgraph import Subgraphs, run_subgraphs
from interp.engine.subgraph_work import place
from interp.errors import CircuitError, PromptError, did_you_mean
from interp.models import Model
from interp.prompts import PromptSet
from interp.runs import Run
from interp.sites import Site
from interp.workers import Engine

ABLATIONS = ("zero", "mean", "counterfactual-mean", "resample", "counterfactual", "optimal")
"""What can take the place of everything outside a circuit; `ablation_of` says what each is."""


def ablation_of(
    model: Model,
    prompts: PromptSet,
    name: str,
    *,
    over: str = "template",
    fit: PromptSet | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Operation | dict[Site, Operation]:
    """What the nodes outside a circuit are ablated to, as `run_subgraphs` takes it.

    >>> import interp
    >>> model = interp.load("polymath")
    >>> prompts = interp.tasks.get("ioi").sample(model, n=4, seed=0)
    >>> ablation_of(model, prompts, "mean", over="position")
    Mean(over='position')

    Args:
        model: In eval mode.
        prompts: What circuits will be run on.
        name: "zero"; "mean", over the tokens of the prompts that `over` names;
            "counterfactual-mean", the same over their counterfactuals (the means over p_ABC of
            Wang et al. 2023); "resample", another prompt of the same length; "counterfactual", the
            counterfactual of each prompt; "optimal", for each node the constant that disturbs the
            model least when that node alone is set to it.
        over: Of the means: "all" real tokens, those at the same "position", in the same "role", or
            at the same place of the same "template". Padding never counts, and each node has means
            of its own.
        fit: Prompts that optimal constants are learned on: others than those they are judged on.
        seed: Of "resample".
        progress: Show a bar while constants are learned.

    Raises:
        CircuitError: An unknown name, or optimal constants without prompts to learn them on.
        PromptError: No counterfactuals, no templates, or a prompt that is averaged with no other,
            so that its mean is its own activation.
        InterventionError: An unknown `over`.
    """
    require_ablation(prompts, name, over=over, fit=fit)
    if name == "counterfactual-mean":
        return _means_of_counterfactuals(model, prompts, Mean(over))
    if name != "optimal":
        return operation_of(name, over, seed)
    assert fit is not None
    nodes = graph_nodes(model)
    learned = optimal(model, fit, [place(node) for node in nodes], progress=progress)
    return {node: each.edits[0].operation for node, each in zip(nodes, learned, strict=True)}


def require_ablation(
    prompts: PromptSet, name: str, *, over: str = "template", fit: PromptSet | None = None
) -> None:
    """Raise what `ablation_of` raises, before anything is run."""
    if name not in ABLATIONS:
        raise CircuitError(f"There is no ablation {name!r}: {did_you_mean(name, ABLATIONS)}")
    if name in ("mean", "counterfactual-mean"):
        Mean(over)  # refuses what no mean is taken over
    if name == "mean":
        _require_company(prompts, over)
    if name == "counterfactual-mean" and prompts.corrupt is None:
        raise PromptError(
            "Means over counterfactuals need a counterfactual of each prompt and these have none; "
            "make them with corrupt=, or use the ablation 'mean'."
        )
    if name == "optimal" and fit is None:
        raise CircuitError(
            "Optimal constants are learned, and there are no prompts to learn them on; give "
            "fit=, such as the same task with another seed."
        )


def run_circuits(
    model: Model,
    prompts: PromptSet,
    circuits: Sequence[Circuit],
    operation: Operation | Mapping[Site, Operation],
    *,
    metric: str | Callable[..., Any] = "logit_diff",
    engine: Engine | None = None,
    run: Run | None = None,
    progress: bool = True,
) -> Subgraphs:
    """The metric of each circuit, all of them side by side.

    A node that a circuit keeps at some roles is ablated, for every reader, at all other positions.
    `engine` and `run` are those of `run_subgraphs`.

    Raises:
        CircuitError: A circuit of another shape than the model's, or none.
        PromptError: A role that the prompts lack.
        InterventionError, MetricError, ModelError, RunError: As `run_subgraphs`.
    """
    require_shape(model, circuits)
    kept = torch.stack([circuit.kept for circuit in circuits])
    places = None
    if any(circuit.places for circuit in circuits):
        places = torch.stack([where_kept(circuit, prompts) for circuit in circuits])
    return run_subgraphs(
        model,
        prompts,
        kept,
        operation,
        places=places,
        metric=metric,
        engine=engine,
        run=run,
        progress=progress,
    )


def where_kept(circuit: Circuit, prompts: PromptSet) -> Bool[Tensor, "sources prompts pos"]:
    """The columns of the prompts at which a circuit keeps each source: all, or those of its roles.

    Raises:
        PromptError: A role that some prompt lacks.
    """
    columns = torch.arange(prompts.clean.shape[1])
    where = torch.ones(len(circuit.shape.nodes) - 1, *prompts.clean.shape, dtype=torch.bool)
    for node, roles in circuit.places.items():
        inside = torch.zeros_like(where[0])
        for role in roles:
            spans = prompts.span(role).cpu()
            if (lacking := spans[:, 0] < 0).any():
                raise PromptError(
                    f"The circuit keeps {node} at {role}, and prompt "
                    f"{int(lacking.int().argmax())} lacks this role; leave out such prompts, or "
                    "the role."
                )
            inside |= (columns >= spans[:, :1]) & (columns < spans[:, 1:])
        where[circuit.shape.node_index[node]] = inside
    return where


def require_shape(model: Model, circuits: Sequence[Circuit]) -> None:
    """Raise CircuitError unless there are circuits, all of them of this model's shape."""
    if not circuits:
        raise CircuitError("There are no circuits to run; give at least one.")
    own = Shape.of(model)
    for circuit in circuits:
        if circuit.shape != own:
            raise CircuitError(
                f"A circuit is of {circuit.shape} and {model.id} is of {own}; find it again in "
                "this model, with the model that it was found in."
            )


def _require_company(prompts: PromptSet, over: str) -> None:
    """Raise PromptError for a prompt no token of which is averaged with another token."""
    keys, mask = token_keys(prompts, over), prompts.mask.cpu()
    averaged = keys[mask].bincount()
    alone = ((averaged[keys] == 1) | ~mask).all(dim=-1)
    if alone.any():
        raise PromptError(
            f"Prompt {int(alone.int().argmax())} is averaged with no other over {over!r}, so that "
            "its mean is its own activation and would ablate nothing; give more prompts, or use "
            "over='position' or 'counterfactual-mean'."
        )


def _means_of_counterfactuals(
    model: Model, prompts: PromptSet, mean: Mean
) -> dict[Site, Operation]:
    """Each node's means over the counterfactuals, one for each prompt and position."""
    assert prompts.corrupt is not None
    others = replace(prompts, clean=prompts.corrupt, corrupt=None)
    replay, nodes = replay_of(model), graph_nodes(model)
    edits = [Edit(place(node), mean) for node in nodes]
    some = groups(others, largest_group(replay, others))
    found: dict[Site, Tensor] = {}
    shape = prompts.clean.shape
    with torch.no_grad():
        sources = Sources(replay, others, some, [Intervention((edit,)) for edit in edits])
        for group in some:
            opened = sources.open(group)
            for node, edit in zip(nodes, edits, strict=True):
                value = torch.as_tensor(opened.change(edit).value()).cpu()
                whole = found.setdefault(node, value.new_zeros(shape + value.shape[-1:]))
                whole[group.rows[:, None], group.columns] = value
    return {node: Set(value) for node, value in found.items()}
