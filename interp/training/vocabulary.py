"""Word-level tokenizers for the embedded models."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING

from interp.tasks import Task
from interp.tasks.words import Words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PATTERN = r"\n+|[QA]:|\d{2}(?=\d{2}(?!\d))|\d+|[^\W\d_]+|[^\w\s]"
"""Runs of newlines, the marks Q: and A:, the halves of a year, numbers, words, punctuation."""

BOS, PAD, UNK = "<|endoftext|>", "<pad>", "<unk>"


def all_words(task: Task) -> Words:
    """Every entry of every group of a task, unfiltered."""
    return {name: tuple(group.entries) for name, group in task.groups().items()}


def build_tokenizer(texts: Iterable[str], *, max_length: int) -> PreTrainedTokenizerFast:
    """A tokenizer of every word of `texts`: one token a word, whatever stands before it."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    cut = pre_tokenizers.Split(Regex(PATTERN), behavior="removed", invert=True)
    words = {word for text in texts for word, _ in cut.pre_tokenize_str(text)}
    ordered = sorted(words, key=lambda word: (word.isdigit(), len(word) * word.isdigit(), word))
    vocabulary = {word: index for index, word in enumerate([BOS, PAD, UNK, *ordered])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = cut
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=BOS,
        pad_token=PAD,
        unk_token=UNK,
        model_max_length=max_length,
        clean_up_tokenization_spaces=True,
    )


def sample_texts(tasks: Iterable[Task], *, documents: int = 300) -> list[str]:
    """Every word of the tasks' lists, and enough documents to meet every word of their wordings."""
    texts = []
    for task in tasks:
        words = all_words(task)
        for entries in words.values():
            for entry in entries:
                texts.append(entry if isinstance(entry, str) else " ".join(entry))
        rng = random.Random(0)
        texts += [task.document(rng, words) for _ in range(documents)]
    return texts
