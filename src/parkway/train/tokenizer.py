"""The tokenizer of park-mini: byte-level BPE, one special token a role, and the chat template that uses them."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from parkway.train.dialogue import Dialogue
from parkway.train.packed import Document

END = "<|end|>"
PAD = "<|pad|>"
ROLES = {"system": "<|system|>", "user": "<|user|>", "assistant": "<|assistant|>"}
SPECIAL = (END, PAD, *ROLES.values())

# Roles that the model does not know are read as the nearest one that it does.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- set role = {'system': 'system', 'developer': 'system', 'assistant': 'assistant'}[message['role']] -%}"
    "{{- '<|' + (role or 'user') + '|>' + (message['content'] | trim) + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn `vocab_size` tokens, special ones included, from `texts`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, dialogues: Iterable[Dialogue]) -> list[Document]:
    """Encode dialogues as the chat template writes them; to be predicted are the answers and the ends behind them."""
    all_turns = [(turn, at) for at, dialogue in enumerate(dialogues) for turn in dialogue]
    # A special token in what somebody wrote is text: it must not open a turn.
    tokenizer.encode_special_tokens = True
    encodings = tokenizer.encode_batch([turn.content for turn, _ in all_turns], add_special_tokens=False)
    tokenizer.encode_special_tokens = False
    role_ids = {role: token_id(tokenizer, token) for role, token in ROLES.items()}
    end = token_id(tokenizer, END)
    ids: dict[int, list[int]] = {}
    wanted: dict[int, list[bool]] = {}
    for (turn, at), encoding in zip(all_turns, encodings, strict=True):
        tokens = [role_ids[turn.role], *encoding.ids, end]
        spoken = turn.role == "assistant"
        ids.setdefault(at, []).extend(tokens)
        wanted.setdefault(at, []).extend([False] + [spoken] * (len(tokens) - 1))
    return [Document(torch.tensor(ids[at]), torch.tensor(wanted[at])) for at in ids]


def token_id(tokenizer: Tokenizer, special: str) -> int:
    """The id of one of `SPECIAL`, which every tokenizer of `train_tokenizer` has."""
    found = tokenizer.token_to_id(special)
    assert found is not None, f"a tokenizer without {special} was not made here"  # noqa: S101
    return found


def save_tokenizer(tokenizer: Tokenizer, directory: Path, context: int) -> None:
    """Write tokenizer.json and tokenizer_config.json with the chat template."""
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
