"""Schedule, sampler, augmentation and settings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hamr_edge.errors import InputError
from hamr_edge.trainer.augment import augment, normalise, step_generator
from hamr_edge.trainer.config import PRESETS, TrainConfig
from hamr_edge.trainer.sampler import epoch_batches
from hamr_edge.trainer.schedule import learning_rate, paper_rate

EDGE = PRESETS["edge"]


def test_paper_schedule_is_equation_5() -> None:
    expected = {1: 3e-5, 10: 3e-4, 11: 0.01, 60: 0.01, 61: 0.005, 90: 0.005, 91: 0.0025, 120: 0.0025, 121: 0.00125}
    for epoch, rate in expected.items():
        assert paper_rate(epoch) == pytest.approx(rate)
        assert learning_rate(PRESETS["paper"], epoch, 0.5) == pytest.approx(rate)


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
    ],
)
def test_wrong_settings_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(EDGE, **change)  # type: ignore[arg-type]
