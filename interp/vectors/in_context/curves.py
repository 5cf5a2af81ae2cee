"""What the figures and tables of this package have in common."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go


def add_curve(
    figure: go.Figure, frame: pd.DataFrame, across: str, up: str, *, name: str, color: str
) -> None:
    """A line through two columns of a table, with the interval of `up`, ci_low to ci_high."""
    figure.add_scatter(
        x=frame[across],
        y=frame[up],
        error_y={
            "type": "data",
            "array": frame["ci_high"] - frame[up],
            "arrayminus": frame[up] - frame["ci_low"],
            "thickness": 1,
        },
        name=name,
        line={"color": color},
    )


def probability_axes(
    figure: go.Figure, title: str, across: str, *, up: str = "probability of the task's answer"
) -> None:
    """Titles, and a vertical axis from 0 to 1."""
    figure.update_layout(title=title, template="plotly_white")
    figure.update_xaxes(title_text=across)
    figure.update_yaxes(title_text=up, range=[0, 1])
