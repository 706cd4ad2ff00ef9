from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest

from hamr_edge.backend import Backend, open_backend
from hamr_edge.benchmarks.diagnosis import (
    FAULTS,
    OVERFLOW,
    RESIZE,
    ROWS,
    SCALE,
    WEIGHTS,
    Cause,
    find_causes,
    judge_input,
)
from hamr_edge.benchmarks.input_faults import (
    COLOURS,
    LAYOUT,
    MIRRORED,
    NORMALISED_TWICE,
    NOT_NORMALISED,
    SCALED_TWICE,
    UPSIDE_DOWN,
)
from hamr_edge.benchmarks.resize_rules import RESIZE_RULES
from hamr_edge.benchmarks.tensor_ranges import RangeFindings, inspect_ranges
from hamr_edge.preprocess import resize_crop
from hamr_edge.sidecar import load_sidecar
from tests import planted_faults as planted
from tests.artifacts import write_tiny_artifact
from tests.diagnosis_network import MEAN, STD, crops, write_network
from tests.variants import mix_rows, repeat_fourth_row, reverse_rows, write_variant

IMAGES = crops(16)
FACTOR_255 = (0.225 * 255, 0.224 * 255, 0.229 * 255)
Change = Callable[[onnx.ModelProto], object]


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """The sound float32 artifact, open."""
    path = write_network(tmp_path_factory.mktemp("reference") / "reference.onnx")
    with open_backend(path, "cpu", 1) as backend:
        yield backend


def _diagnose(artifact: Path, reference: Backend) -> tuple[Cause, ...]:
    with open_backend(artifact, "cpu", 1) as backend:
        return find_causes(backend, reference, IMAGES, inspect_ranges(artifact, backend.sidecar, IMAGES[:6]))


def _with_fault(tmp_path: Path, change: Change, precision: str = "fp32", frame: bool = False) -> Path:
    good = write_network(tmp_path / "good.onnx", precision, frame=frame)

    def plant(model: onnx.ModelProto) -> None:
        change(model)

    return write_variant(good, tmp_path / "bad.onnx", plant)


@pytest.mark.parametrize("frame", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_good_artifact_has_no_fault(precision: str, frame: bool, reference: Backend, tmp_path: Path) -> None:
    assert _diagnose(write_network(tmp_path / "good.onnx", precision, frame=frame), reference) == ()


INPUT_CASES: dict[str, tuple[str, Change]] = {
    "colours": (COLOURS, planted.swap_colours),
    "mirrored": (MIRRORED, planted.mirror_crops),
    "upside down": (UPSIDE_DOWN, planted.turn_upside_down),
    "layout": (LAYOUT, planted.misread_layout),
    "normalised twice": (NORMALISED_TWICE, partial(planted.normalise_twice, mean=MEAN, std=STD)),
    "normalised and scaled twice": (
        NORMALISED_TWICE,
        partial(planted.normalise_twice, mean=MEAN, std=STD, keep_range=False),
    ),
    "not normalised": (NOT_NORMALISED, partial(planted.leave_normalisation_out, mean=MEAN, std=STD)),
    "not even scaled": (
        NOT_NORMALISED,
        partial(planted.affine_input, factor=FACTOR_255, offset=tuple(255 * value for value in MEAN)),
    ),
    "scaled twice": (SCALED_TWICE, partial(planted.affine_input, factor=(1 / 255,) * 3, offset=(0.0,) * 3)),
}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("case", INPUT_CASES)
def test_a_fault_of_the_input_is_named(case: str, precision: str, reference: Backend, tmp_path: Path) -> None:
    fault, change = INPUT_CASES[case]
    (cause,) = _diagnose(_with_fault(tmp_path, change, precision), reference)
    assert cause.fault == fault in FAULTS
    assert "mean cosine of 16 crops" in cause.sentence


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (planted.resize_by_nearest, "the nearest pixel"),
        (planted.align_corners, "bilinear interpolation with corners aligned"),
        (planted.resize_asymmetrically, "bilinear interpolation from pixels' corners (asymmetric)"),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_graph_that_resizes_another_way_is_named(
    change: Change, rule: str, precision: str, reference: Backend, tmp_path: Path
) -> None:
    (cause,) = _diagnose(_with_fault(tmp_path, change, precision, frame=True), reference)
    assert cause.fault == RESIZE
    assert f"resized by {rule}" in cause.sentence


class _Misresizing(Backend):
    """Crops and resizes by another rule before it runs a sound network."""

    def __init__(self, inner: Backend, rule: str) -> None:
        self.sidecar = replace(inner.sidecar, form="frame")
        self.name, self.device, self._inner, self._rule = inner.name, inner.device, inner, RESIZE_RULES[rule]

    def open(self) -> None:
        self._inner.open()

    def close(self) -> None:
        self._inner.close()

    @property
    def is_open(self) -> bool:
        return self._inner.is_open

    def _infer_frame(self, frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        windows = boxes.astype(int).tolist()
        resized = [
            self._rule(frame[top:bottom, left:right], self.sidecar.input_size_hw)
            for left, top, right, bottom in windows
        ]
        return self._inner.infer(np.stack(resized))


@pytest.mark.parametrize("rule", RESIZE_RULES)
def test_each_rule_of_resizing_is_told_from_the_others(rule: str, reference: Backend, tmp_path: Path) -> None:
    inner = open_backend(write_network(tmp_path / "good.onnx"), "cpu", 1)
    with _Misresizing(inner, rule) as backend:
        (cause,) = find_causes(backend, reference, IMAGES, RangeFindings())
    assert cause.fault == RESIZE
    assert f"resized by {rule}" in cause.sentence


@pytest.mark.parametrize("rule", RESIZE_RULES)
def test_every_rule_gives_the_size_asked_for_and_keeps_what_is_at_it(rule: str) -> None:
    resize, image = RESIZE_RULES[rule], IMAGES[0]
    assert resize(image, (32, 16)).shape == (32, 16, 3)
    assert resize(image, (32, 16)).dtype == np.uint8
    assert not np.array_equal(resize(image, (32, 16)), resize_crop(image, (32, 16)))
    ready = resize_crop(image, (32, 16))
    np.testing.assert_array_equal(resize(ready, (32, 16)), ready)


def test_antialiasing_widens_the_filter_only_where_it_shrinks() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 30, 3), np.uint8)
    antialiased = RESIZE_RULES["antialiased bilinear interpolation, as Pillow does it"]
    assert antialiased(noise, (7, 4)).std() < 0.5 * resize_crop(noise, (7, 4)).std()
    grown = antialiased(noise, (120, 60)).astype(int)
    assert np.abs(grown - resize_crop(noise, (120, 60))).max() <= 1


@pytest.mark.parametrize("factor", [8, 1 / 8, 100])
@pytest.mark.parametrize("scale", ["inner0_scale", "inner1_scale", "weight1_scale", "weight2_scale"])
def test_a_broken_scale_is_named(scale: str, factor: float, reference: Backend, tmp_path: Path) -> None:
    bad = _with_fault(tmp_path, partial(planted.scale_constant, name=scale, factor=factor), "int8")
    (cause,) = _diagnose(bad, reference)
    assert cause.fault == SCALE
    assert f"the scale {scale} is wrong" in cause.sentence


def test_a_weight_that_no_range_betrays_is_found_by_trying(reference: Backend, tmp_path: Path) -> None:
    # Behind the last activation that is rounded: nothing after it shows that it is wrong but for the embeddings.
    def change(model: onnx.ModelProto) -> None:
        planted.scale_constant(model, "weight3_scale", 1 / 64)

    bad = _with_fault(tmp_path, change, "int8")
    assert not inspect_ranges(bad, load_sidecar(bad), IMAGES[:6]).scales
    (cause,) = _diagnose(bad, reference)
    assert cause.fault == SCALE
    assert "the scale weight3_scale is wrong" in cause.sentence


def test_an_overflow_is_named_whatever_the_embeddings_look_like(reference: Backend, tmp_path: Path) -> None:
    causes = _diagnose(_with_fault(tmp_path, planted.overflow_inside, "fp16"), reference)
    assert causes[0].fault == OVERFLOW
    assert "conv1" in causes[0].sentence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (mix_rows, "depends on the other crops"),
        (reverse_rows, "in another order"),
        (repeat_fourth_row, "depends on the other crops"),
    ],
)
def test_rows_that_are_mixed_are_named(change: Change, words: str, tmp_path: Path) -> None:
    good = write_tiny_artifact(tmp_path / "good.onnx")
    bad = write_variant(good, tmp_path / "bad.onnx", change)  # type: ignore[arg-type]
    with open_backend(good, "cpu", 1) as reference:
        (cause,) = _diagnose(bad, reference)
    assert cause.fault == ROWS
    assert words in cause.sentence


def test_mixed_rows_hide_no_other_fault(reference: Backend, tmp_path: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        mix_rows(model)
        planted.swap_colours(model)

    assert [cause.fault for cause in _diagnose(_with_fault(tmp_path, change), reference)] == [ROWS, COLOURS]


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_other_weights_are_what_remains(precision: str, seed: int, reference: Backend, tmp_path: Path) -> None:
    (cause,) = _diagnose(write_network(tmp_path / "other.onnx", precision, seed), reference)
    assert cause.fault == WEIGHTS
    assert cause.sentence.startswith("most likely")


@pytest.mark.parametrize("noise", [0.05, 0.2])
def test_a_loss_that_nothing_explains_gets_no_wrong_name(noise: float, reference: Backend, tmp_path: Path) -> None:
    def blur_weights(model: onnx.ModelProto) -> None:
        rng = np.random.default_rng(0)
        for index, item in enumerate(model.graph.initializer):
            if item.name.endswith("_int8"):
                values = onnx.numpy_helper.to_array(item)
                worse = (values + rng.normal(0, 127 * noise, values.shape)).round().clip(-127, 127).astype(np.int8)
                model.graph.initializer[index].CopyFrom(onnx.numpy_helper.from_array(worse, item.name))

    assert _diagnose(_with_fault(tmp_path, blur_weights, "int8"), reference) == ()


def test_embeddings_of_another_width_are_not_compared(tiny_artifact: Path, reference: Backend) -> None:
    assert _diagnose(tiny_artifact, reference) == ()


def test_judge_input_names_what_the_sidecars_say_otherwise(tmp_path: Path) -> None:
    sidecar = load_sidecar(write_network(tmp_path / "good.onnx"))
    assert not list(judge_input(sidecar, sidecar))
    assert not list(judge_input(replace(sidecar, resize="", mean=(0.0, 0.0, 0.0)), sidecar))
    for change, words in (
        ({"input_size_hw": (64, 16)}, r"(64, 16), the reference (32, 16)"),
        ({"resize": "bicubic"}, "crops resized by bicubic"),
        ({"mean": MEAN[::-1]}, "mean 0.485, 0.456, 0.406 (BGR)"),
        ({"std": (1.0, 1.0, 1.0)}, "deviation 1, 1, 1"),
    ):
        (sentence,) = judge_input(replace(sidecar, **change), sidecar)  # type: ignore[arg-type]
        assert words in sentence


def test_scales_that_contradict_each_other_are_named_without_a_range(reference: Backend, tmp_path: Path) -> None:
    good = write_network(tmp_path / "good.onnx", "int8")
    words = "a is rounded with the scale b and restored with c"
    with open_backend(good, "cpu", 1) as backend:
        (cause,) = find_causes(backend, reference, IMAGES, RangeFindings(6, good, contradictions=(words,)))
    assert cause.fault == SCALE
    assert words in cause.sentence
