"""Questions from a file of JSON lines: `{"question": ..., "answer": ...[, "labels": [...]]}`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.consistency.questions import Question
from interp.errors import FileFormatError, TaskError, one_line
from interp.json_file import read_json_lines

WAY_OUT = 'each line is a JSON object like {"question": "Is ice cold?", "answer": "yes"}'


def read_questions(
    path: str | Path,
    *,
    template: str = "Q: {question}\nA:",
    thinking: str = " Step by step:",
    conclusion: str = " The answer is",
    rule: str = "",
) -> list[Question]:
    """The questions of a file, in its order.

    Args:
        path: A file of UTF-8 JSON lines; empty lines are skipped. Without "labels" the labels are
            all answers of the file, sorted.
        template: A prompt with `{question}` in it; examples to follow may stand before it.
        thinking, conclusion, rule: As of `Question`.

    Raises:
        FileFormatError: The file cannot be read, or a line is not what it should be; says which.
        TaskError: A template without `{question}`.
    """
    if "{question}" not in template:
        raise TaskError(f"The template {template!r} lacks {{question}}; put it where that belongs.")
    path = Path(path)
    lines = read_json_lines(path, way_out=WAY_OUT)
    rows = {number: _row(path, number, row) for number, row in lines}
    if not rows:
        raise FileFormatError(f"{path} holds no questions; {WAY_OUT}.")
    seen = tuple(sorted({row["answer"] for row in rows.values()}))
    found = []
    for i, row in rows.items():
        try:
            found.append(
                Question(
                    template.replace("{question}", row["question"]),
                    row["answer"],
                    tuple(row.get("labels", seen)),
                    thinking,
                    conclusion,
                    rule,
                )
            )
        except TaskError as error:
            raise FileFormatError(
                f"{path}, line {i} is no question ({one_line(error)}); {WAY_OUT}."
            ) from error
    return found


def _row(path: Path, i: int, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise FileFormatError(f"{path}, line {i} is no JSON object; {WAY_OUT}.")
    for name in ("question", "answer"):
        if not isinstance(row.get(name), str) or not row[name].strip():
            raise FileFormatError(
                f"{path}, line {i} has {row.get(name)!r:.80} for {name!r}, which is no text; "
                f"{WAY_OUT}."
            )
    labels = row.get("labels", [])
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise FileFormatError(
            f"{path}, line {i} has the labels {labels!r:.80}; give a list of texts, or none."
        )
    return row
