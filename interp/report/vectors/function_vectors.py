"""Function vectors as sections of a report: which heads carry one, and who needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from interp.report.difference import beyond
from interp.report.drawing import svg
from interp.report.drawing.chart import Series, points
from interp.report.frame import frame_table
from interp.report.parts import (
    Block,
    Claim,
    Figure,
    Section,
    Table,
    Verdict,
    decimals,
    interval,
    listed,
    number,
    of,
    provenance_rows,
)
from interp.report.rerun import arguments, function_vector_of, rerun, template_of
from interp.vectors import FunctionVector, HeadCheck

ENDS = ("ci_low", "ci_high")
SIGNIFICANT = 0.05
TOP = 10
"""Heads in the table beside the heatmap; the values under it have them all."""


def function_vector_section(found: FunctionVector, results: Sequence[object] = ()) -> Section:
    """What each head brings back of a relation, and which of them make the vector."""
    frame, known = found.to_frame(), found.provenance
    name, model = found.relation.name, str(known["model"])
    size = f"{of(len(found.clean))} prompts of {int(frame['queries'][0])} queries"
    return Section(
        heading=f"Which heads carry {name} in {model}",
        lead=(
            f"Demonstrations of {name} are spoilt ({found.corruption}), and each head in turn is "
            "given the mean of what it writes where they are right. Its effect is how much of the "
            f"answer's probability comes back. The vector adds up the best {len(found.heads)}."
        ),
        claims=(_best_head(found, frame, model, size),),
        blocks=(_effects(found, frame, model, size),),
        limits=(
            "Heads are put in one at a time: two that only work together both look idle.",
            "The heads of the vector are the best on these prompts; what they do on others is "
            "shown by HeadCheck and Injection.",
            f"If no head had an effect, about {max(1, round(0.05 * len(frame)))} of {len(frame)} "
            "intervals would still miss zero, by chance.",
        ),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            function_vector_of(name, found.options).removesuffix(")")
            + f"{template_of({'template': asdict(found.template)})})",
        ),
        baselines=Table(
            f"Probability of the answer, {size}",
            ("Demonstrations", "Probability"),
            (
                ("right (clean)", found.clean.mean().item()),
                (f"{found.corruption} (corrupt)", found.corrupt.mean().item()),
            ),
            digits=3,
        ),
    )


def _best_head(found: FunctionVector, frame: pd.DataFrame, model: str, size: str) -> Claim:
    """The control of the best head is every other head."""
    best, others = frame.iloc[0], frame["effect"].iloc[1:]
    digits = decimals(float(frame["effect"].abs().max()))
    usual = float(others.quantile(0.95))
    verdict = beyond(float(best["effect"]), float(best["ci_low"]), 0.0, usual)
    carries = {
        "found": f"Head {best['head']} carries the most",
        "doubtful": f"Head {best['head']} may carry the most",
        "not found": "No head stands out as a carrier",
    }[verdict]
    return Claim(
        f"{carries} of {found.relation.name} in {model}: {best['head']} brings back "
        f"{number(best['share'])} of what spoilt demonstrations cost.",
        f"Effect {number(best['effect'], sign=True, digits=digits)} in probability "
        f"({interval(best['ci_low'], best['ci_high'], digits=digits)}) of a cost of "
        f"{number(found.gap, digits=3)}; the other {len(others)} heads: median "
        f"{number(float(others.median()), sign=True, digits=digits)}, nineteen in twenty below "
        f"{number(usual, sign=True, digits=digits)}; {size}.",
        verdict,
    )


def _effects(found: FunctionVector, frame: pd.DataFrame, model: str, size: str) -> Block:
    grid = found.aie
    reach = float(grid.abs().max()) or 1.0
    digits = decimals(reach)
    rows = frame.set_index("head")
    tips = [
        [
            f"{head}: {number(rows['effect'][head], sign=True, digits=digits)} "
            f"({interval(rows['ci_low'][head], rows['ci_high'][head], digits=digits)})"
            f"{', in the vector' if rows['used'][head] else ''}"
            for head in (f"{layer}.{i}" for i in range(grid.shape[1]))
        ]
        for layer in range(len(grid))
    ]
    drawing = svg.heatmap(
        grid,
        label=f"Average indirect effect of every head on {found.relation.name}, layer by head. "
        f"Largest: {frame['head'][0]} with {number(frame['effect'][0], digits=digits)}.",
        tips=tips,
        limits=(-reach, reach),
        diverging=True,
        digits=digits,
    )
    ends = number(-reach, digits=digits), number(reach, sign=True, digits=digits)
    columns = {
        "head": "Head",
        "effect": "Effect",
        "ci_low": "from",
        "ci_high": "to",
        "share": "Share of the cost",
        "used": "In the vector",
    }
    used = listed([str(head) for head in found.heads], most=12)
    return Block(
        f"Causal effect of every head on {found.relation.name}",
        "The probability of the answer with the head's mean of clean prompts put into a spoilt "
        f"one, minus that of the spoilt prompt as it is. In the vector: {used}.",
        (
            Figure(
                model,
                drawing,
                f"Rows are layers, columns are heads; {size}.",
                svg.legend(*ends, diverging=True, middle="0"),
                frame_table(f"Every head, {size}", frame, columns, digits=digits),
            ),
        ),
        (frame_table(f"The {TOP} best heads, {size}", frame[:TOP], columns, digits=digits),),
    )


def head_check_section(check: HeadCheck, results: Sequence[object] = ()) -> Section:
    """Whether a function is lost without the heads of its vector, beside random heads."""
    frame, known = check.to_frame(), check.provenance
    model, name = str(known["model"]), str(known.get("relation", "the relation"))
    top, others, gap = (frame.iloc[i] for i in range(3))
    size = f"{of(int(top['n']))} prompts of {int(top['queries'])} queries"
    enough = gap["ci_high"] < 0 and check.p_value <= SIGNIFICANT
    verdict: Verdict = "found" if enough else "not found" if gap["change"] >= 0 else "doubtful"
    loses = {
        "found": "loses more",
        "doubtful": "may lose more",
        "not found": "loses no more",
    }[verdict]
    drawing = points(
        [Series.of(frame, "change", "change", ends=ENDS)],
        ["heads of the vector", f"{len(check.sets)} random sets", "difference"],
        label=f"Change of the answer's probability without the heads of the vector, "
        f"{number(top['change'], digits=3)}, and without random ones, "
        f"{number(others['change'], digits=3)}.",
        across="change of the answer's probability",
        level=("no change", 0.0),
    )
    return Section(
        heading=f"Is {name} lost without its heads in {model}?",
        lead=(
            "The heads of the function vector were found by what they bring back. Here they are "
            "taken out of full prompts together, and so are random sets of as many other heads of "
            "the same layers."
        ),
        claims=(
            Claim(
                f"Without the {len(check.heads)} heads of the vector of {name}, {model} {loses} "
                "than without random heads.",
                f"Change of the answer's probability {number(top['change'], sign=True, digits=3)} "
                f"({interval(top['ci_low'], top['ci_high'], digits=3)}), without random heads "
                f"{number(others['change'], sign=True, digits=3)} "
                f"({interval(others['ci_low'], others['ci_high'], digits=3)}), difference "
                f"{number(gap['change'], sign=True, digits=3)} "
                f"({interval(gap['ci_low'], gap['ci_high'], digits=3)}); p "
                f"{number(check.p_value, digits=3)} among {len(check.sets)} random sets; {size}.",
                verdict,
            ),
        ),
        blocks=(
            Block(
                "Without the heads",
                f"The answer has probability {number(check.clean.mean().item(), digits=3)} with "
                "all heads. The p-value is the share of sets, the heads themselves among them, "
                "that cost as much.",
                (
                    Figure(
                        model,
                        drawing,
                        f"Lines are 95% intervals over queries; {size}.",
                        data=frame_table("The heads, random sets, and their difference", frame),
                    ),
                ),
                (
                    Table(
                        "Which heads were taken out",
                        ("Set", "Heads", "Probability of the answer"),
                        (
                            ("vector", _named(check.heads), check.without.mean().item()),
                            *(
                                (f"random {i}", _named(heads), check.random[i - 1].mean().item())
                                for i, heads in enumerate(check.sets, 1)
                            ),
                        ),
                        digits=3,
                    ),
                ),
            ),
        ),
        limits=(
            "Taking heads out can do damage that has nothing to do with the task: that is why "
            "random heads stand beside.",
            f"With {len(check.sets)} random sets no p-value is below "
            f"{number(1 / (1 + len(check.sets)), digits=3)}.",
        ),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            f"found = {function_vector_of(name, known.get('function', {}))}",
            "interp.vectors.head_check(model, found, "
            + arguments(
                method=known.get("method"),
                n=len(check.clean),
                sets=len(check.sets),
                seed=known.get("set_seed"),
            )
            + ")",
        ),
        baselines=Table(
            f"Probability of the answer, {size}",
            ("Prompts", "Probability"),
            (
                ("all heads (clean)", check.clean.mean().item()),
                ("without the heads (ablated)", check.without.mean().item()),
                ("without random heads (ablated)", check.random.mean().item()),
            ),
            digits=3,
        ),
    )


def _named(heads: Sequence[object]) -> str:
    return ", ".join(map(str, heads))
