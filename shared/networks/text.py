"""Sentences as vectors: all-MiniLM-L6-v2 (Reimers 2019, Wang 2020), read from its safetensors.

Its six layers are BERT's (Devlin 2018), and torch has those. The library `transformers` would add
seconds of imports to each process, and its kernels change from release to release.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional as F

from shared.errors import CorruptObject

MAX_TOKENS = 256
"""The model was trained on no more; what follows is cut off."""

AT_ONCE = 64

LAYER_NAMES = {
    "self_attn.out_proj": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "linear1": "intermediate.dense",
    "linear2": "output.dense",
    "norm2": "output.LayerNorm",
}
"""torch's name of a part of a layer, and BERT's."""


class SentenceEncoder(nn.Module):
    """Sentences to unit vectors. The same sentence alone gives the same bits on one machine."""

    def __init__(self, folder: Path) -> None:
        """Read the encoder from a folder (`shared.text.find_encoder`).

        Raises:
            CorruptObject: the weights are not those of such a model.
        """
        super().__init__()
        # Only those who have the extra `text` come here.
        from tokenizers import Tokenizer

        data = (folder / "model.safetensors").read_bytes()
        config = json.loads((folder / "config.json").read_bytes())
        self.sha256 = hashlib.sha256(data).hexdigest()
        """Of the weights: another encoder's vectors mean other things."""
        self.dim: int = config["hidden_size"]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(MAX_TOKENS)
        self.words = nn.Embedding(config["vocab_size"], self.dim)
        self.places = nn.Embedding(config["max_position_embeddings"], self.dim)
        self.kinds = nn.Embedding(config["type_vocab_size"], self.dim)
        self.norm = nn.LayerNorm(self.dim, config["layer_norm_eps"])
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                self.dim,
                config["num_attention_heads"],
                config["intermediate_size"],
                activation="gelu",
                layer_norm_eps=config["layer_norm_eps"],
                batch_first=True,
            )
            for _ in range(config["num_hidden_layers"])
        )
        try:
            self.load_state_dict(_renamed(load(data), len(self.layers)))
        except (SafetensorError, KeyError, RuntimeError) as error:
            raise CorruptObject(f"{folder} holds no sentence encoder: {error}") from error
        self.eval().requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens int64 [n, length], all of one length; returns unit vectors [n, dim]: the means
        over the tokens (Reimers 2019, section 3), normalised."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        h = self.norm(self.words(tokens) + self.places(places) + self.kinds.weight[0])
        for layer in self.layers:
            h = layer(h)
        return F.normalize(h.mean(1), dim=1)

    @torch.no_grad()
    def embed(self, sentences: Sequence[str]) -> Tensor:
        """Unit vectors float32 [n, dim]. Sentences of one length go together, so that none is
        padded and its vector does not depend on the others' lengths."""
        tokens = [self._tokenizer.encode(sentence).ids for sentence in sentences]
        order = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        vectors = torch.empty(len(tokens), self.dim)
        for _, group in groupby(order, key=lambda i: len(tokens[i])):
            for rows in torch.tensor(list(group)).split(AT_ONCE):
                vectors[rows] = self(torch.tensor([tokens[i] for i in rows.tolist()]))
        return vectors


def as_condition(vectors: Tensor) -> Tensor:
    """Unit vectors [n, dim] as networks are given them: entries about as large as z's own."""
    return vectors * math.sqrt(vectors.shape[1])


def _renamed(weights: dict[str, Tensor], num_layers: int) -> dict[str, Tensor]:
    """BERT's weights by the names that torch and `SentenceEncoder` give them."""
    embeddings = {
        "words.weight": "word_embeddings.weight",
        "places.weight": "position_embeddings.weight",
        "kinds.weight": "token_type_embeddings.weight",
        "norm.weight": "LayerNorm.weight",
        "norm.bias": "LayerNorm.bias",
    }
    renamed = {ours: weights[f"embeddings.{theirs}"] for ours, theirs in embeddings.items()}
    for k in range(num_layers):
        ours, theirs = f"layers.{k}.", f"encoder.layer.{k}."
        for kind in ("weight", "bias"):
            attention = (f"attention.self.{part}.{kind}" for part in ("query", "key", "value"))
            renamed[f"{ours}self_attn.in_proj_{kind}"] = torch.cat(
                [weights[theirs + name] for name in attention]
            )
            for name, its in LAYER_NAMES.items():
                renamed[f"{ours}{name}.{kind}"] = weights[f"{theirs}{its}.{kind}"]
    return renamed
