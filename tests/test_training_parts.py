"""Schedule, sampler, augmentation and settings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hamr_edge.errors import InputError
from hamr_edge.trainer.augment import augment, draw_drop_block, normalise, step_generator
from hamr_edge.trainer.config import PRESETS, TrainConfig
from hamr_edge.trainer.sampler import epoch_batches
from hamr_edge.trainer.schedule import learning_rate, paper_rate

EDGE = PRESETS["edge"]


def test_paper_schedule_is_equation_5() -> None:
    expected = {1: 3e-5, 10: 3e-4, 11: 0.01, 60: 0.01, 61: 0.005, 90: 0.005, 91: 0.0025, 120: 0.0025, 121: 0.00125}
    for epoch, rate in expected.items():
        assert paper_rate(epoch) == pytest.approx(rate)
        assert learning_rate(PRESETS["paper"], epoch, 0.5) == pytest.approx(rate)


def test_the_papers_schedule_without_its_warm_up() -> None:
    config = replace(PRESETS["paper"], warmup_epochs=0)
    assert [learning_rate(config, epoch, 0) for epoch in (1, 10, 60, 61)] == [0.01, 0.01, 0.01, 0.005]


def test_step_and_cosine_warm_up_then_fall() -> None:
    for schedule in ("step", "cosine"):
        config = replace(EDGE, schedule=schedule, epochs=40, warmup_epochs=4)
        rates = [learning_rate(config, epoch, 0) for epoch in range(1, 41)]
        assert rates[0] == pytest.approx(0.1 * config.learning_rate)
        assert max(rates) == pytest.approx(config.learning_rate)
        assert np.argmax(rates) == 4
        assert rates[-1] <= 0.1 * config.learning_rate


@given(
    counts=st.lists(st.integers(1, 12), min_size=4, max_size=20),
    images=st.integers(2, 5),
    epoch=st.integers(1, 50),
)
@settings(max_examples=50, deadline=None)
def test_batches_hold_p_identities_of_k_images(counts: list[int], images: int, epoch: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    batches = epoch_batches(labels, 4, images, seed=3, epoch=epoch)
    assert batches
    for batch in batches:
        identities, seen = np.unique(labels[batch], return_counts=True)
        assert len(identities) == 4
        assert (seen == images).all()
        grouped = labels[batch].reshape(4, images)
        assert (grouped == grouped[:, :1]).all()
    again = epoch_batches(labels, 4, images, seed=3, epoch=epoch)
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


def test_an_epoch_shows_nearly_every_image_once() -> None:
    labels = np.repeat(np.arange(32), 16)
    batches = epoch_batches(labels, 8, 4, seed=0, epoch=1)
    seen = np.concatenate(batches)
    assert len(seen) == len(np.unique(seen))
    assert len(seen) >= 0.8 * len(labels)


def test_too_few_identities_are_named() -> None:
    with pytest.raises(InputError, match="needs 16 identities, the training set has 3"):
        epoch_batches(np.array([0, 1, 2, 2]), 16, 4, seed=0, epoch=1)


def test_normalise_is_imagenets_in_rgb() -> None:
    image = torch.zeros(1, 2, 2, 3, dtype=torch.uint8)
    image[..., 0], image[..., 2] = 255, 128  # blue full, red half
    out = normalise(image)
    assert out.shape == (1, 3, 2, 2)
    assert out[0, :, 0, 0].tolist() == pytest.approx(
        [(128 / 255 - 0.485) / 0.229, -0.456 / 0.224, (1 - 0.406) / 0.225], rel=1e-5
    )


def test_without_augmentation_images_are_only_normalised() -> None:
    images = torch.randint(0, 256, (3, 12, 8, 3), dtype=torch.uint8)
    config = replace(EDGE, flip=0, crop_padding=0, erase=0)
    torch.testing.assert_close(augment(images, config, step_generator(0, 1, 0)), normalise(images))


def test_flip_crop_and_erase_do_what_they_say() -> None:
    images = torch.randint(1, 256, (64, 24, 12, 3), dtype=torch.uint8)
    plain = normalise(images)
    flipped = augment(images, replace(EDGE, flip=1, crop_padding=0, erase=0), step_generator(0, 1, 0))
    torch.testing.assert_close(flipped, plain.flip(3))

    erased = augment(images, replace(EDGE, flip=0, crop_padding=0, erase=1), step_generator(0, 1, 0))
    gone = (erased == 0).all(1)
    shares = gone.float().mean((1, 2))
    assert ((shares > 0.01) & (shares < 0.45)).all()
    for image in range(len(images)):  # one full rectangle, the rest untouched
        rows, columns = gone[image].any(1), gone[image].any(0)
        assert gone[image].sum() == rows.sum() * columns.sum()
        torch.testing.assert_close(erased[image][:, ~gone[image]], plain[image][:, ~gone[image]])

    moved = augment(images, replace(EDGE, flip=0, crop_padding=2, erase=0), step_generator(0, 1, 0))
    padded = torch.nn.functional.pad(plain, (2, 2, 2, 2))
    for image in range(8):
        windows = [padded[image][:, y : y + 24, x : x + 12] for y in range(5) for x in range(5)]
        assert any(torch.equal(moved[image], window) for window in windows)


def test_a_share_of_the_batch_is_augmented_as_in_the_whole() -> None:
    config = replace(EDGE, ids_per_batch=4, images_per_id=4, color_jitter=0.3)
    images = torch.randint(0, 256, (16, 24, 12, 3), dtype=torch.uint8)
    whole = augment(images, config, step_generator(0, 1, 0))
    for rows in (slice(0, 8), slice(8, 16)):
        share = augment(images[rows], config, step_generator(0, 1, 0), rows)
        torch.testing.assert_close(share, whole[rows])


def test_colours_change_by_each_images_own_draw() -> None:
    images = torch.randint(100, 140, (32, 8, 4, 3), dtype=torch.uint8)
    config = replace(EDGE, flip=0, crop_padding=0, erase=0)
    plain = normalise(images)
    changed = augment(images, replace(config, color_jitter=0.2), step_generator(0, 1, 0))
    ratio = (changed.mean((1, 2, 3)) + 2.1) / (plain.mean((1, 2, 3)) + 2.1)
    assert ratio.std() > 0.02
    assert torch.isfinite(changed).all()
    grey = torch.full((4, 8, 4, 3), 120, dtype=torch.uint8)
    still_grey = augment(grey, replace(config, color_jitter=0.5), step_generator(0, 1, 0))
    scale = torch.tensor([0.229, 0.224, 0.225]) * 255
    offset = torch.tensor([0.485, 0.456, 0.406]) * 255
    pixels = still_grey * scale[:, None, None] + offset[:, None, None]
    torch.testing.assert_close(pixels, pixels[:, :1].expand_as(pixels), rtol=0, atol=0.01)
    assert pixels.amin() >= 0
    assert pixels.amax() <= 255


def test_drop_block_takes_a_third_of_the_rows_of_half_the_batches() -> None:
    config = replace(PRESETS["paper"], drop_block=0.5)
    masks = [draw_drop_block(config, step_generator(0, 1, step)) for step in range(200)]
    rows = torch.stack([mask[:, 0] for mask in masks if mask is not None])
    assert rows.shape == (200, 24)
    dropped = (rows == 0).sum(1)
    assert set(dropped.tolist()) == {0, 8}
    assert 70 <= int((dropped == 8).sum()) <= 130
    for mask in rows[dropped == 8]:
        assert (mask.diff() != 0).sum() <= 2  # one block
    assert (rows == 0).any(0).all()  # every row at some time
    assert draw_drop_block(replace(config, drop_block=0.0), step_generator(0, 1, 0)) is None


def test_steps_draw_their_own_numbers() -> None:
    draws = {
        float(torch.rand(1, generator=step_generator(*key))) for key in [(0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 1, 0)]
    }
    assert len(draws) == 4


def test_settings_survive_json() -> None:
    for preset in PRESETS.values():
        assert TrainConfig.from_json(preset.to_json()) == preset


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"images_per_id": 1}, "images_per_id must be at least 2"),
        ({"flip": 1.5}, "flip must be in 0..1"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0"),
        ({"optimizer": "adagrad"}, "sgd, adam"),
        ({"drop_block": 2.0}, "drop_block must be in 0..1"),
        ({"color_jitter": -0.1}, "color_jitter must be in 0..1"),
        ({"ema": 1.0}, "below 1, got 1.0"),
        ({"metric_loss": "arcface"}, "triplet, soft-triplet"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(EDGE, **change)  # type: ignore[arg-type]
