"""Tokenizers of the two kinds that matter to tasks: whole words, and pieces with their spaces."""

from __future__ import annotations

import random
from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import interp
from interp.training.mixture import Mixture
from interp.training.vocabulary import sample_texts


@cache
def word_model() -> interp.Model:
    """An untrained model in the vocabulary of polymath: every word is one token."""
    return _model(Mixture(length=256).tokenizer)


@cache
def piece_model() -> interp.Model:
    """An untrained model in byte pairs: " Mary" and "Mary" differ, and many words are pieces."""
    spoken = [task for task in Mixture(length=256).tasks if task.name != "repeated_tokens"]
    texts = sample_texts(spoken, documents=100)
    random.Random(0).shuffle(texts)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1_600,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    end = "<|endoftext|>"
    return _model(
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token=end, eos_token=end, unk_token=end
        )
    )


def _model(tokenizer: PreTrainedTokenizerFast) -> interp.Model:
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return interp.load(GPT2LMHeadModel(config), tokenizer, check=False)
