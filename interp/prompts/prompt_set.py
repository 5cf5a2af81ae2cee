"""`PromptSet`: what an experiment is run on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.display import as_html
from interp.errors import PromptError, did_you_mean
from interp.models import Model
from interp.prompts.align import pad_rows, span_of_tokens, tokenize
from interp.prompts.validate import validate
from interp.saved import Saved

ABSENT = -1
"""Fills short rows of `answer` and `wrong`, and both ends of a role that a prompt lacks."""

Spans = Sequence[str | tuple[int, int] | None]


@dataclass(frozen=True, eq=False)
class PromptSet(Saved):
    """Prompts, the tokens that answer them, and where things stand in them.

    Attributes:
        clean: Token ids. Rows may be padded on either side; `mask` says where.
        corrupt: The counterfactual of each prompt, aligned with it position by position.
        answer: Tokens that are right at the last real position; -1 fills short rows.
        wrong: Tokens that the answer is compared with; -1 fills short rows.
        mask: True at real tokens, one unbroken run in each row.
        roles: Named half-open spans `[start, stop)` of columns, (-1, -1) where a prompt lacks the
            role. "END", the last real token, is always present.
        task: Name of the task that made the prompts, or "" for the user's own.
        notes: How they were made: seed, split, words kept, the template of each prompt.

    Raises:
        PromptError: Empty sets, misaligned or identical pairs, answers that are also wrong answers,
            broken masks, spans outside their prompt. The message names the first such prompt.
    """

    clean: Int[Tensor, "prompts pos"]
    corrupt: Int[Tensor, "prompts pos"] | None
    answer: Int[Tensor, "prompts answers"]
    wrong: Int[Tensor, "prompts wrongs"] | None
    mask: Bool[Tensor, "prompts pos"]
    roles: dict[str, Int[Tensor, "prompts 2"]]
    task: str = ""
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        validate(self)
        end = self.end
        object.__setattr__(
            self, "roles", {**self.roles, "END": torch.stack([end, end + 1], dim=-1)}
        )

    @classmethod
    def from_tokens(
        cls,
        clean: Int[Tensor, "prompts pos"] | Sequence[Sequence[int]],
        corrupt: Int[Tensor, "prompts pos"] | Sequence[Sequence[int]] | None = None,
        *,
        answer: Int[Tensor, "*shape"] | Sequence[int] | Sequence[Sequence[int]],
        wrong: Int[Tensor, "*shape"] | Sequence[int] | Sequence[Sequence[int]] | None = None,
        mask: Bool[Tensor, "prompts pos"] | None = None,
        roles: Mapping[str, Int[Tensor, "prompts 2"]] | None = None,
        task: str = "",
        notes: Mapping[str, Any] | None = None,
    ) -> PromptSet:
        """Prompts from token ids; lists of unequal length are padded on the right.

        >>> prompts = PromptSet.from_tokens([[1, 2, 3], [1, 4]], answer=[5, 6], wrong=[7, 8])
        >>> len(prompts), prompts.end.tolist()
        (2, [2, 1])
        """
        if len(clean) == 0:
            raise PromptError("A prompt set needs at least one prompt, and got none.")
        if not isinstance(clean, Tensor):
            for index, row in enumerate(clean):
                if len(row) == 0:
                    raise PromptError(f"Prompt {index} has no tokens; every prompt needs one.")
        tokens, real = pad_rows(clean)
        if corrupt is not None:
            corrupt, _ = _aligned(tokens, real, corrupt)
        return cls(
            clean=tokens,
            corrupt=corrupt,
            answer=_choices(answer),
            wrong=None if wrong is None else _choices(wrong),
            mask=real if mask is None else mask,
            roles=dict(roles or {}),
            task=task,
            notes=dict(notes or {}),
        )

    @classmethod
    def from_strings(
        cls,
        model: Model,
        clean: Sequence[str],
        *,
        corrupt: Sequence[str] | None = None,
        answer: Sequence[str] | Sequence[Sequence[str]],
        wrong: Sequence[str] | Sequence[Sequence[str]] | None = None,
        roles: Mapping[str, Spans] | None = None,
        prepend_bos: bool = True,
        task: str = "",
        notes: Mapping[str, Any] | None = None,
    ) -> PromptSet:
        """Prompts from text, tokenized by the model's tokenizer and padded on the right.

        Args:
            model: Whose tokenizer is used.
            clean: One text a prompt, without the beginning-of-sequence token.
            corrupt: The counterfactuals: as many tokens as their prompt, and not equal to it.
            answer: What must follow, as it stands in the text: `" Mary"` with its space. One word,
                or several that are all right, for each prompt; each a single token.
            wrong: What it is compared with, in the same form.
            roles: For each name, one entry a prompt: a piece of the text that occurs in it once, a
                `(start, stop)` pair of characters, or None.
            prepend_bos: Begin each prompt with `model.bos_id`, as TransformerLens does.
            task: Name of the task that made them.
            notes: How they were made.

        Raises:
            PromptError: See the class; also answers of several tokens, and text that is not there.
        """
        _same_count(clean, corrupt=corrupt, answer=answer, wrong=wrong, **dict(roles or {}))
        bos = [model.bos_id] if prepend_bos and model.bos_id is not None else []
        encoded = [tokenize(model, text) for text in clean]
        spans = {
            name: torch.tensor(
                [
                    (ABSENT, ABSENT) if span is None else
                    span_of_tokens(text, span, offsets, shift=len(bos), role=name, prompt=index)
                    for index, (text, span, (_, offsets)) in enumerate(
                        zip(clean, column, encoded, strict=True)
                    )
                ]
            )
            for name, column in (roles or {}).items()
        }  # fmt: skip
        return cls.from_tokens(
            [bos + ids for ids, _ in encoded],
            None if corrupt is None else [bos + tokenize(model, text)[0] for text in corrupt],
            answer=_single_tokens(model, answer, "answer"),
            wrong=None if wrong is None else _single_tokens(model, wrong, "wrong answer"),
            roles=spans,
            task=task,
            notes=notes,
        )

    def __len__(self) -> int:
        return self.clean.shape[0]

    def __getitem__(self, rows: int | slice | Sequence[int] | Tensor) -> PromptSet:
        """The prompts of these rows, as a smaller set; notes with one entry a prompt follow."""
        picked = torch.arange(len(self))[[rows] if isinstance(rows, int) else rows]
        where = picked.to(self.clean.device)
        return replace(
            self,
            clean=self.clean[where],
            corrupt=None if self.corrupt is None else self.corrupt[where],
            answer=self.answer[where],
            wrong=None if self.wrong is None else self.wrong[where],
            mask=self.mask[where],
            roles={name: spans[where] for name, spans in self.roles.items()},
            notes={
                name: [note[i] for i in picked.tolist()]
                if isinstance(note, list) and len(note) == len(self)
                else note
                for name, note in self.notes.items()
            },
        )

    @property
    def end(self) -> Int[Tensor, " prompts"]:
        """Column of the last real token of each prompt."""
        columns = torch.arange(self.mask.shape[1], device=self.mask.device)
        return (columns * self.mask).argmax(dim=-1)

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that change with any token, answer, mask or role."""
        digest = hashlib.sha256()
        named = {"clean": self.clean, "corrupt": self.corrupt, "answer": self.answer}
        named |= {"wrong": self.wrong, "mask": self.mask}
        named |= {f"role {name}": self.roles[name] for name in sorted(self.roles)}
        for name, tensor in named.items():
            if tensor is not None:
                digest.update(f"{name}{tuple(tensor.shape)}".encode())
                digest.update(tensor.to("cpu", torch.int64).contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    @property
    def identity(self) -> str:
        """All that decides numbers: `hash`, and the templates over which means may be taken."""
        templates = self.notes.get("template")
        if templates is None:
            return self.hash
        digest = hashlib.sha256(json.dumps(templates, default=str).encode())
        return f"{self.hash} {digest.hexdigest()[:16]}"

    def span(self, role: str) -> Int[Tensor, "prompts 2"]:
        """Half-open span of a role in each prompt.

        Raises:
            PromptError: No prompt has this role.
        """
        if role not in self.roles:
            raise PromptError(f"No prompt has the role {role!r}: {did_you_mean(role, self.roles)}")
        return self.roles[role]

    def to(self, device: torch.device | str) -> PromptSet:
        """The same prompts with every tensor on `device`."""
        return replace(
            self,
            clean=self.clean.to(device),
            corrupt=None if self.corrupt is None else self.corrupt.to(device),
            answer=self.answer.to(device),
            wrong=None if self.wrong is None else self.wrong.to(device),
            mask=self.mask.to(device),
            roles={name: spans.to(device) for name, spans in self.roles.items()},
        )

    def to_frame(self, model: Model) -> pd.DataFrame:
        """One row a prompt, decoded: clean, corrupt, answer, wrong, and the words of each role."""

        def decode(tokens: Tensor) -> str:
            return str(model.tokenizer.decode(tokens))

        columns: dict[str, list[str | None]] = {
            "clean": [decode(row[real]) for row, real in zip(self.clean, self.mask, strict=True)]
        }
        if self.corrupt is not None:
            columns["corrupt"] = [
                decode(row[real]) for row, real in zip(self.corrupt, self.mask, strict=True)
            ]
        for name, choices in (("answer", self.answer), ("wrong", self.wrong)):
            if choices is not None:
                columns[name] = [
                    " | ".join(decode(token) for token in row[row != ABSENT]) for row in choices
                ]
        for name, spans in self.roles.items():
            columns[name] = [
                None if start == ABSENT else decode(row[start:stop])
                for row, (start, stop) in zip(self.clean, spans.tolist(), strict=True)
            ]
        return pd.DataFrame(columns)

    def __repr__(self) -> str:
        lengths = self.mask.sum(dim=-1)
        parts = [
            f"{len(self)} prompts of {int(lengths.min())}-{int(lengths.max())} tokens",
            "with counterfactuals" if self.corrupt is not None else "without counterfactuals",
            f"roles {', '.join(self.roles)}",
        ]
        if "kept" in self.notes:
            parts.append(f"words kept: {self.notes['kept']}")
        return f"PromptSet({self.task or 'user'}: {'; '.join(parts)})"

    def _repr_html_(self) -> str:
        return as_html(self)


def _choices(
    tokens: Int[Tensor, "*shape"] | Sequence[int] | Sequence[Sequence[int]],
) -> Int[Tensor, "prompts choices"]:
    """One or several token ids a prompt as a matrix, -1 filling short rows."""
    if isinstance(tokens, Tensor):
        return tokens[:, None] if tokens.ndim == 1 else tokens
    rows = [[row] if isinstance(row, int) else list(row) for row in tokens]
    return pad_rows(rows, fill=ABSENT)[0]


def _aligned(
    clean: Int[Tensor, "prompts pos"],
    real: Bool[Tensor, "prompts pos"],
    corrupt: Int[Tensor, "prompts pos"] | Sequence[Sequence[int]],
) -> tuple[Int[Tensor, "prompts pos"], Bool[Tensor, "prompts pos"]]:
    """The counterfactuals as a matrix of the shape of `clean`."""
    if len(corrupt) != len(clean):
        raise PromptError(
            f"There are {len(corrupt)} counterfactuals for {len(clean)} prompts; give one for each."
        )
    lengths = [len(row) for row in corrupt]
    wanted = [clean.shape[1]] * len(clean) if isinstance(corrupt, Tensor) else real.sum(-1).tolist()
    for index, (got, want) in enumerate(zip(lengths, wanted, strict=True)):
        if got != want:
            raise PromptError(
                f"Prompt {index} has {want} tokens and its counterfactual {got}; pairs are "
                "compared position by position, so give both the same number of tokens."
            )
    return pad_rows(corrupt)


def _same_count(clean: Sequence[Any], **columns: Sequence[Any] | None) -> None:
    if isinstance(clean, str):
        raise PromptError(
            f"Prompts are a list of texts, and got one text, {clean!r}; wrap it in []."
        )
    if len(clean) == 0:
        raise PromptError("A prompt set needs at least one prompt, and got none.")
    for name, column in columns.items():
        if column is not None and len(column) != len(clean):
            raise PromptError(
                f"{name} has {len(column)} entries for {len(clean)} prompts; give one for each."
            )


def _single_tokens(
    model: Model, words: Sequence[str] | Sequence[Sequence[str]], what: str
) -> list[list[int]]:
    """The token id of each word.

    Raises:
        PromptError: A word is several tokens, or none that the tokenizer knows.
    """
    rows = []
    known: dict[str, int | None] = {}  # tasks ask for the same words over and over
    for index, entry in enumerate(words):
        row = []
        for word in [entry] if isinstance(entry, str) else entry:
            if word not in known:
                known[word] = model.single_token(word)
            if (token := known[word]) is None:
                pieces = model.tokenizer.convert_ids_to_tokens(model.encode(word))
                raise PromptError(
                    f"Prompt {index}: the {what} {word!r} is {pieces} in this tokenizer and "
                    "must be one known token; give it the space that precedes it in the text, or "
                    "use another word."
                )
            row.append(token)
        rows.append(row)
    return rows
