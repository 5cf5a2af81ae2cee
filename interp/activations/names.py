"""Which hook points do the names and globs mean?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from interp.errors import InterventionError, SiteError

if TYPE_CHECKING:
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge import TransformerBridge
else:
    HookPoint = TransformerBridge = Any  # TransformerLens takes a second to import

GATES = {
    "hook_result": "use_attn_result",
    "hook_q_input": "use_split_qkv_input",
    "hook_k_input": "use_split_qkv_input",
    "hook_v_input": "use_split_qkv_input",
    "hook_attn_in": "use_attn_in",
    "hook_mlp_in": "use_hook_mlp_in",
}
"""Hooks that a bridge runs only when a flag is set, since each costs time and memory."""

QUADRATIC = ("hook_pattern", "hook_attn_scores")
"""Hooks whose size grows with the square of the prompt length."""


def find(bridge: TransformerBridge, names: str | Iterable[str]) -> dict[str, HookPoint]:
    """The hook point of every name, in the order asked; globs in the order of the layers.

    In a glob `*`, `?` and `[01]` stand for characters of one dotted part, so `blocks.*.hook_in`
    is not `blocks.0.attn.hook_in`. A glob takes every hook point once, under its TransformerLens
    name if it has several. Costly hooks (GATES, QUADRATIC) have to be spelled out in the last part.

    Raises SiteError for a name or glob that matches nothing.
    """
    known = bridge.hook_dict
    found: dict[str, HookPoint] = {}
    for name in [names] if isinstance(names, str) else names:
        if name in known:
            found[name] = known[name]
        elif matches := _expand(name, known):
            for match in matches:
                if all(known[match] is not point for point in found.values()):
                    found[match] = known[match]
        else:
            raise SiteError(_nothing_matches(name, known))
    if not found:
        raise SiteError("No hook is named; name at least one, such as blocks.*.hook_resid_pre.")
    return found


@contextmanager
def gates_open(bridge: TransformerBridge, names: Iterable[str]) -> Iterator[None]:
    """Set the flags that the named hooks need, and put every flag back afterwards.

    Raises InterventionError where the architecture cannot run such a hook.
    """
    closed = {
        flag: name
        for name in names
        if (flag := GATES.get(_last(name))) is not None and not getattr(bridge.cfg, flag)
    }
    opened = []
    try:
        for flag, name in closed.items():
            try:
                getattr(bridge, f"set_{flag}")(True)
            except (NotImplementedError, ValueError) as error:
                raise InterventionError(
                    f"{name} cannot be captured from this model: {error} "
                    "Capture hook_z, hook_attn_out or hook_resid_pre and compute it from there."
                ) from error
            opened.append(flag)
        yield
    finally:
        for flag in opened:
            getattr(bridge, f"set_{flag}")(False)


def _expand(glob: str, known: Mapping[str, HookPoint]) -> list[str]:
    """Names that a glob matches, one for each hook point, in the order of the layers."""
    parts = glob.split(".")
    spelled = not re.search(r"[*?[]", parts[-1])
    names: dict[int, str] = {}
    for name, point in known.items():
        pieces = name.split(".")
        if len(pieces) == len(parts) and all(map(fnmatchcase, pieces, parts)):
            costly = pieces[-1] in GATES or pieces[-1] in QUADRATIC
            if (spelled or not costly) and (id(point) not in names or name != point.name):
                names[id(point)] = name
    return sorted(names.values(), key=_layer_first)


def _layer_first(name: str) -> list[str | int]:
    # "blocks.10." after "blocks.9."
    return [int(piece) if piece.isdigit() else piece for piece in re.split(r"(\d+)", name)]


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _nothing_matches(name: str, known: Mapping[str, HookPoint]) -> str:
    forms = {re.sub(r"\.\d+\.", ".*.", each) for each in known}
    form = re.sub(r"\.\d+\.", ".*.", name)
    if form in forms and (block := re.match(r"blocks\.(\d+)\.", name)):
        layers = {int(found[1]) for each in known if (found := re.match(r"blocks\.(\d+)\.", each))}
        return (
            f"{name} is a hook of block {block[1]}, and this model has such hooks in blocks "
            f"{min(layers)} to {max(layers)}."
        )
    close = get_close_matches(form, forms)
    way_out = f"did you mean {' or '.join(close)}?" if close else "see model.bridge.hook_dict."
    return f"{name!r} matches no hook of this model (* stands for one dotted part): {way_out}"
