"""Questions from files: what is read, and which line is wrong."""

from __future__ import annotations

import json

import pytest

from interp.consistency.json_lines import read_questions
from interp.errors import FileFormatError, TaskError

GOOD = {"question": "Is ice {cold}?", "answer": "yes"}


def test_labels_are_those_of_a_line_or_all_answers_of_the_file(tmp_path) -> None:
    path = tmp_path / "q.jsonl"
    rows = [GOOD, {"question": "Is fire?", "answer": "no"}]
    path.write_text("\n\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    one, other = read_questions(path, template="Say: {question}!", thinking=" Hm:")
    assert one.text == "Say: Is ice {cold}?!"
    assert one.labels == other.labels == ("no", "yes")
    assert one.prompt(rationale=True).endswith("! Hm:")
    path.write_text(json.dumps({**GOOD, "labels": ["yes", "no", "maybe"]}), encoding="utf-8")
    assert read_questions(path)[0].labels == ("yes", "no", "maybe")
    assert read_questions(path)[0].text == "Q: Is ice {cold}?\nA:"


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("{", "line 2 is not JSON"),
        ("[]", "line 2 is no JSON object"),
        ('{"answer": "yes"}', "line 2 has None for 'question'"),
        ('{"question": "?", "answer": true}', "line 2 has True for 'answer'"),
        ('{"question": "?", "answer": " "}', "line 2 has ' ' for 'answer'"),
        ('{"question": "?", "answer": "yes", "labels": "yes no"}', "line 2 has the labels"),
        (
            '{"question": "?", "answer": "yes", "labels": ["no", "maybe"]}',
            r"line 2 is no question \(The answer",
        ),
    ],
)
def test_the_line_that_is_wrong_is_named(tmp_path, second, said) -> None:
    path = tmp_path / "q.jsonl"
    first = {**GOOD, "labels": ["yes", "no"]}
    path.write_text(json.dumps(first) + "\n" + second, encoding="utf-8")
    with pytest.raises(FileFormatError, match=said):
        read_questions(path)


def test_files_without_questions_are_refused(tmp_path) -> None:
    path = tmp_path / "q.jsonl"
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_questions(path)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(FileFormatError, match="holds no questions"):
        read_questions(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFormatError, match=r"line 1 is not JSON .*utf-8"):
        read_questions(path)
    path.write_text(json.dumps(GOOD), encoding="utf-8")
    with pytest.raises(FileFormatError, match=r"line 1 is no question \(The labels"):
        read_questions(path)  # one answer alone is no choice
    with pytest.raises(TaskError, match="lacks"):
        read_questions(path, template="Q:")
