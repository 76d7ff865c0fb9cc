"""Presets: what does not fit is said as invalid input, never as a defect."""

from __future__ import annotations

import pytest

from shared.errors import InvalidInput
from shared.schemas.presets import PRESETS, resolve_preset


@pytest.mark.parametrize("preset", PRESETS)
def test_a_side_that_no_network_doubles_to_is_invalid_input(preset: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        resolve_preset(preset, size=50, channels=1, num_classes=3, overrides={}, has_captions=True)
    assert "size 50 is not" in caught.value.errors[0].detail


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ({"objective": "wasserstein", "penalties": {"r1_gamma": 0, "r2_gamma": 0}}, "gp_weight"),
        ({"penalties": {"lecam_weight": 0.3}}, "relativistic logits have no mean"),
        ({"generator": {"architecture": "residual"}, "standing_batches": 4}, "with norms"),
        ({"balanced": True}, "needs a recipe with classes"),
        ({"label_flip": 0.1}, "needs objective non_saturating"),
        ({"discriminator": {"pac": 2, "num_classes": 3}}, "a pack has no class"),
        ({"discriminator": {"pac": 3}}, "must divide the batches"),
        ({"discriminator": {"norm": "batch"}}, "batch norm mixes images"),
        ({"discriminator": {"architecture": "residual", "norm": "batch"}}, "has no norm batch"),
        ({"discriminator": {"size": 16}}, "differ in size"),
        ({"discriminator": {"text_dim": 8}}, "differ in text_dim"),
        ({"discriminator": {"pac": 2, "text_dim": 8}}, "a pack has no text"),
        ({"generator": {"text_dim": 8}}, "dcgan takes no text"),
        ({"generator": {"text_dim": 8, "num_classes": 3}}, "one must be 0"),
        ({"penalties": {"matching_weight": 2}}, "needs a recipe with text"),
        ({"penalties": {"contrast_weight": 1}}, "needs a recipe with text"),
        ({"guide": {"weight": 1}}, "guide.weight needs a recipe with text"),
    ],
)
def test_parts_that_clash_are_told(overrides: dict, problem: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        resolve_preset("modern", size=32, channels=1, num_classes=0, overrides=overrides)
    assert problem in caught.value.errors[0].detail


def test_text_needs_captions_and_another_objective_than_pairs() -> None:
    ask = {"size": 32, "channels": 3, "num_classes": 3}
    with pytest.raises(InvalidInput, match="needs a dataset with captions") as caught:
        resolve_preset("text-to-image", **ask, overrides={})
    assert caught.value.errors[0].pointer == "/spec/dataset"
    with pytest.raises(InvalidInput) as caught:  # neighbours are held against each other's texts
        resolve_preset("text-to-image", **ask, has_captions=True, overrides={}, workers=4)
    assert "is not divisible by 32 x 1 x 4" in caught.value.errors[0].detail
    overrides = {"objective": "relativistic"}
    with pytest.raises(InvalidInput) as caught:
        resolve_preset("text-to-image", **ask, has_captions=True, overrides=overrides)
    assert "text needs another objective" in caught.value.errors[0].detail


@pytest.mark.parametrize("preset", PRESETS)
def test_a_scale_changes_the_widths_and_nothing_else(preset: str) -> None:
    ask = {"size": 32, "channels": 1, "num_classes": 3, "has_captions": True}
    small = resolve_preset(preset, **ask, overrides={}).model_dump()
    for scale, factor in (("tiny", 0.5), ("small", 1), ("base", 4)):
        scaled = resolve_preset(preset, **ask, scale=scale, overrides={}).model_dump()
        for network in ("generator", "discriminator"):
            assert scaled[network].pop("width") == factor * small[network]["width"]
            scaled[network]["width"] = small[network]["width"]
        assert scaled == small


def test_an_override_has_the_last_word_on_a_width() -> None:
    ask = {"size": 32, "channels": 1, "num_classes": 0, "overrides": {"generator": {"width": 8}}}
    config = resolve_preset("modern", **ask, scale="base")
    assert (config.generator.width, config.discriminator.width) == (8, 64)


@pytest.mark.parametrize("preset", ["modern", "modern-conditional"])
def test_few_images_are_augmented_unless_one_says_otherwise(preset: str) -> None:
    ask = {"size": 32, "channels": 3, "num_classes": 2}
    many = resolve_preset(preset, **ask, overrides={})
    few = resolve_preset(preset, **ask, num_images=9_999, overrides={})
    assert (many.augment.p, many.augment.target) == (0, None)
    assert (few.augment.p, few.augment.target) == (0.3, 0.6)
    assert few.model_copy(update={"augment": many.augment}) == many
    off = {"augment": {"p": 0, "target": None}}
    plain = resolve_preset(preset, **ask, num_images=9_999, overrides=off)
    assert (plain.augment.p, plain.augment.target) == (0, None)


@pytest.mark.parametrize("preset", ["modern", "modern-conditional"])
def test_above_32_pixels_steps_are_small_and_no_checkerboard_is_drawn(preset: str) -> None:
    ask = {"channels": 3, "num_classes": 2, "overrides": {}}
    small, large = (resolve_preset(preset, size=size, **ask) for size in (32, 64))
    assert (small.generator.upsampling, large.generator.upsampling) == ("transposed", "nearest")
    assert large.optimizer_g.lr == large.optimizer_d.lr == 1.5e-3
