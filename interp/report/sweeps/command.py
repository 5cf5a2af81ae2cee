"""The Python that repeats a sweep, as far as its sites and its provenance tell."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from interp import sites as lists
from interp.engine import METRICS, SweepResult
from interp.report.rerun import arguments, rerun, sampled
from interp.report.sweeps.words import deed_of, inner, position_of
from interp.sites import Edge, Site

SIZES = ("n_layers", "n_heads", "n_kv_heads")
LISTS = ("heads", "queries", "keys", "values", "patterns", "attns", "mlps")
MOST_NAMES = 24
"""Sites that are written out; more are a list that the reader takes from the table."""


def command_of(sweep: SweepResult) -> str:
    """What was typed in the shell; else the calls, each on a line of its own."""
    known = sweep.provenance
    if known.get("command") or (call := _function(sweep)) is None:
        return str(known.get("command", ""))
    name, how = call
    parts, positions = _spread(sweep.sites)
    lines = [sampled(known)]
    written = _sites(sweep, parts)
    if written == "sites":
        lines.append(f"sites = ...  # {len(parts):,} of them, named in the table of all sites")
    if error := known.get("error"):  # the sweep was computed in another precision than the model's
        how, known = {**how, "dtype": known["dtype"]}, {**known, "dtype": error["against"]}
    told = arguments(**how, positions=_positions(sweep, positions))
    metric = repr(sweep.metric) if sweep.metric in METRICS else sweep.metric
    asked = ["model", "prompts", written, told, f"metric={metric}"]
    return rerun(known, *lines, f"{name}({', '.join(each for each in asked if each)})")


def _function(sweep: SweepResult) -> tuple[str, dict[str, Any]] | None:
    """The function that makes such sweeps, and its arguments; None where they are not known."""
    known, deed = sweep.provenance, deed_of(sweep)
    usual = {
        name: known[name]
        for name, default in (("effect", "total"), ("freeze", "none"))
        if known.get(name, default) != default
    }
    if known.get("screen"):
        return "interp.engine.screen", {
            "k": known["k"], "by": known["screen"], "method": sweep.method,
        }  # fmt: skip
    if deed == "ablate":
        over = {"over": known.get("over"), "seed": known.get("seed_of_method")}
        return "interp.ablate", {"method": sweep.method, **over, **usual}
    if deed == "estimate":
        return "interp.attribute", {"method": sweep.method, "steps": known.get("steps")}
    if sweep.method == "patch":
        return "interp.patch", {"direction": known.get("direction"), **usual}
    if sweep.method == "path-patch":
        ends = known.get("receivers", [])
        told = {"receivers": None if ends == ["logits"] else ends}
        return "interp.engine.patch_paths", {**told, "direction": known.get("direction")}
    return None


def _spread(sites: tuple[Site, ...]) -> tuple[tuple[Site, ...], list[str | int] | None]:
    """The parts and the positions that make these sites, every part at every position.

    Sites that are made in no such way are the parts themselves, without positions.
    """
    parts = tuple(dict.fromkeys(map(inner, sites)))
    positions = list(dict.fromkeys(map(position_of, sites)))
    named = [position for position in positions if position is not None]
    made = [(part, position) for part in parts for position in named]
    if len(named) < len(positions) or made != [(inner(s), position_of(s)) for s in sites]:
        return sites, None
    return parts, named


def _positions(
    sweep: SweepResult, positions: list[str | int] | None
) -> list[str | int] | str | int | None:
    """As an argument: gradients are taken at one position, or at each."""
    if positions is None or deed_of(sweep) != "estimate":
        return positions
    return positions[0] if len(positions) == 1 else "each"


def _sites(sweep: SweepResult, parts: tuple[Site, ...]) -> str:
    """The sites as an argument: nothing for the usual ones, a list by its name, else one by one."""
    name = _list_of(parts, sweep.provenance.get("geometry", {}))
    usual = ("nodes", "edges") if deed_of(sweep) == "estimate" else ("heads",)
    if name in usual:
        return "None" if sweep.method == "path-patch" else ""
    if name is not None and name != "nodes":
        function, _, point = name.partition(" ")
        return f"interp.sites.{function}(model{f', {point!r}' if point else ''})"
    return "sites" if len(parts) > MOST_NAMES else str([str(part) for part in parts])


def _list_of(parts: tuple[Site, ...], geometry: dict[str, Any]) -> str | None:
    """The name of the list of a model's sites that these are, such as `heads` or `resid mid`."""
    sizes = {"n_kv_heads": geometry.get("n_heads"), **geometry}
    if any(sizes.get(name) is None for name in SIZES):
        return None
    model = SimpleNamespace(**{name: sizes[name] for name in SIZES})
    if isinstance(parts[0], Edge):  # a large model has millions: they are counted, not listed
        return "edges" if len(parts) == _count_of_edges(model) else None
    known = {name: getattr(lists, name)(model) for name in LISTS}
    known |= {f"resid {point}": lists.resid(model, point) for point in lists.POINTS}
    known["nodes"] = tuple(sorted([*lists.heads(model), *lists.mlps(model)]))
    return next((name for name, those in known.items() if those == parts), None)


def _count_of_edges(model: SimpleNamespace) -> int:
    """How many edges `interp.sites.edges` lists."""
    readers, own = model.n_heads + 2 * model.n_kv_heads, model.n_heads + 1
    sources = [1 + layer * own for layer in range(model.n_layers + 1)]
    return sum((readers + 1) * count + model.n_heads for count in sources[:-1]) + sources[-1]
