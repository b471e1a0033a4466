"""Tiny real models of every architecture, random batches, and texts of two separable classes."""

from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from tuneoff.data.batches import PackedBatch, pad_to_bucket
from tuneoff.encoder.packed import use_packed_attention

_COMMON: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {},
    "distilbert": {},
    "roberta": {"pad_token_id": 1, "max_position_embeddings": 66},
    "xlm-roberta": {"pad_token_id": 1, "max_position_embeddings": 66},
    "electra": {"embedding_size": 8},
    "albert": {"embedding_size": 8, "num_hidden_layers": 3, "hidden_dropout_prob": 0.1},
    "camembert": {"pad_token_id": 1, "max_position_embeddings": 66},
    "ernie": {},
    "modernbert": {
        "num_hidden_layers": 3,
        "global_attn_every_n_layers": 3,
        "local_attention": 8,
        "cls_token_id": 2,
        "sep_token_id": 3,
        "bos_token_id": 2,
        "eos_token_id": 3,
    },
    "nomic_bert": {"hidden_act": "silu"},
    "mpnet": {"pad_token_id": 1, "max_position_embeddings": 66},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 16,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "position_biased_input": False,
        "type_vocab_size": 0,
        "pooler_hidden_size": 16,
    },
}


def tiny_model(model_type: str, num_labels: int = 3, seed: int = 0, **changes: Any) -> Any:
    """A random model in evaluation mode, with packed attention if its architecture supports it. changes: of the config."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(model_type, **{**_COMMON, **CONFIGS[model_type], "num_labels": num_labels, **changes})
    model = AutoModelForSequenceClassification.from_config(config)
    for parameter in model.parameters():  # biases of 0 and norms of 1 would hide mistakes
        parameter.data += 0.05 * torch.randn_like(parameter)
    use_packed_attention(model)
    return model.eval()


def random_batch(lengths: list[int], is_pair: bool = False, num_labels: int = 3, seed: int = 0) -> PackedBatch:
    """A batch of random tokens. lengths: of each example. In a pair, the second half of an example is the second text."""
    rng = np.random.default_rng(seed)
    positions = np.concatenate([np.arange(n) for n in lengths])
    segments = np.concatenate([np.arange(n) >= n // 2 for n in lengths]).astype(np.int64)
    ids = rng.integers(5, 120, sum(lengths))
    rows = pad_to_bucket(np.arange(sum(lengths)))
    return PackedBatch(
        num_tokens=sum(lengths),
        ids=torch.from_numpy(ids[rows])[None],
        positions=torch.from_numpy(positions[rows])[None],
        segments=torch.from_numpy(segments[rows])[None] if is_pair else None,
        lengths=torch.tensor(lengths),
        labels=torch.from_numpy(rng.integers(num_labels, size=len(lengths))),
    )


def padded(batch: PackedBatch, pad_token_id: int) -> dict[str, torch.Tensor]:
    """The arguments with which a plain Hugging Face model computes the same batch, padded."""
    lengths = batch.lengths.tolist()
    pieces = batch.ids[0, : batch.num_tokens].split(lengths)
    pad = torch.nn.utils.rnn.pad_sequence
    arguments = {
        "input_ids": pad(pieces, batch_first=True, padding_value=pad_token_id),
        "attention_mask": pad([torch.ones_like(piece) for piece in pieces], batch_first=True),
    }
    if batch.segments is not None:
        arguments["token_type_ids"] = pad(batch.segments[0, : batch.num_tokens].split(lengths), batch_first=True)
    return arguments


GOOD, BAD = ["good", "great", "fine", "lovely"], ["bad", "awful", "poor", "dull"]
FILLER = ["the", "film", "was", "a", "story", "with", "actors", "and", "music", "in", "it"]
WORDS = [*GOOD, *BAD, *FILLER]


def toy_texts(count: int, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """Texts of filler words with four words that tell the label; both classes are equally frequent."""
    labels = np.arange(count) % 2
    texts = []
    for label in labels:
        words = [*rng.choice(FILLER, rng.integers(1, 4)), *rng.choice(GOOD if label else BAD, 4)]
        texts.append(" ".join(rng.permutation(words)))
    return texts, labels


def word_tokenizer() -> Any:
    """A fast tokenizer with one token per word and BERT's special tokens: [CLS] words [SEP]."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_input_names=["input_ids", "token_type_ids", "attention_mask"], **names
    )
