from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from hamr_edge import ArtifactError, InputError, open_backend
from hamr_edge.foreign_onnx import ForeignOnnxBackend
from hamr_edge.input_description import InputDescription, parse_input_description
from hamr_edge.onnx_backend import OnnxBackend
from hamr_edge.preprocess import IMAGENET_MEAN_RGB, IMAGENET_STD_RGB
from tests.check_backend import check_backend
from tests.foreign_models import SIZE_HW, WIDTH, expected_embeddings, write_foreign

IMAGENET = "rgb-float-imagenet"
_ONES = (1.0, 1.0, 1.0)


def _crops(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE_HW, 3), np.uint8)


def _embed(path: Path, words: str, batch: np.ndarray) -> np.ndarray:
    with ForeignOnnxBackend(path, words, "cpu", threads=1) as backend:
        return backend.infer(batch)


@pytest.mark.parametrize("batch", ["batch", 1, 3, 40])
def test_a_model_of_others_keeps_the_contract(batch: int | str, tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "foreign.onnx", batch)
    backend = open_backend(path, "cpu", threads=1, input_description=IMAGENET)
    assert isinstance(backend, ForeignOnnxBackend)
    assert backend.sidecar.max_batch == (40 if batch == 40 else 32)
    assert (backend.sidecar.input_size_hw, backend.sidecar.embedding_dim) == (SIZE_HW, WIDTH)
    assert backend.sidecar.precision == "fp32"
    check_backend(backend)


@pytest.mark.parametrize(
    ("words", "dtype", "mean", "std", "swap"),
    [
        (IMAGENET, TensorProto.FLOAT, IMAGENET_MEAN_RGB, IMAGENET_STD_RGB, True),
        ("bgr-float-imagenet", TensorProto.FLOAT, IMAGENET_MEAN_RGB[::-1], IMAGENET_STD_RGB[::-1], False),
        ("rgb-float-unit", TensorProto.FLOAT, (0, 0, 0), _ONES, True),
        ("bgr-float-signed", TensorProto.FLOAT, (0.5,) * 3, (0.5,) * 3, False),
        ("rgb-float-255", TensorProto.FLOAT, (0, 0, 0), (1 / 255,) * 3, True),
        ("rgb-uint8", TensorProto.UINT8, (0, 0, 0), _ONES, True),
        ("bgr-uint8-255", TensorProto.UINT8, (0, 0, 0), _ONES, False),
        ("rgb-half-imagenet", TensorProto.FLOAT16, IMAGENET_MEAN_RGB, IMAGENET_STD_RGB, True),
    ],
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_pixels_are_as_described(
    words: str,
    dtype: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    swap: bool,
    channels_last: bool,
    tmp_path: Path,
) -> None:
    path = write_foreign(tmp_path / "foreign.onnx", dtype=dtype, channels_last=channels_last)
    batch = _crops(5)
    found = _embed(path, f"{words}-nhwc" if channels_last else words, batch)
    atol = 5e-3 if dtype == TensorProto.FLOAT16 else 1e-5
    np.testing.assert_allclose(found, expected_embeddings(batch, mean, std, swap=swap), atol=atol)


def test_a_wrong_description_gives_other_embeddings(tmp_path: Path) -> None:
    """So the tests above can fail."""
    path, batch = write_foreign(tmp_path / "foreign.onnx"), _crops(4)
    right = _embed(path, IMAGENET, batch)
    for wrong in ("bgr-float-imagenet", "rgb-float-unit", "rgb-float-signed"):
        assert np.abs(_embed(path, wrong, batch) - right).max() > 0.01, wrong


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_an_output_with_two_sizes_of_1_is_an_embedding(dtype: int, tmp_path: Path) -> None:
    words = "rgb-half-imagenet" if dtype == TensorProto.FLOAT16 else IMAGENET
    batch = _crops(3)
    flat = _embed(write_foreign(tmp_path / "flat.onnx", dtype=dtype), words, batch)
    found = _embed(write_foreign(tmp_path / "map.onnx", dtype=dtype, dimensions=4), words, batch)
    np.testing.assert_allclose(found, flat, atol=1e-6)


def test_precision_is_that_of_the_input(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "half.onnx", dtype=TensorProto.FLOAT16)
    assert ForeignOnnxBackend(path, "rgb-half-unit", "cpu").sidecar.precision == "fp16"


@pytest.mark.parametrize(
    ("outputs", "words", "seed"),
    [
        (("logits", "features"), IMAGENET, 1),
        (("features", "embeddings"), IMAGENET, 1),
        (("a", "b"), f"{IMAGENET}:b", 1),
        (("a", "embeddings"), f"{IMAGENET}:a", 0),
    ],
)
def test_one_of_several_outputs_is_taken(outputs: tuple[str, ...], words: str, seed: int, tmp_path: Path) -> None:
    path, batch = write_foreign(tmp_path / "foreign.onnx", outputs=outputs), _crops(2)
    expected = expected_embeddings(batch, IMAGENET_MEAN_RGB, IMAGENET_STD_RGB, seed)
    np.testing.assert_allclose(_embed(path, words, batch), expected, atol=1e-5)


def test_a_free_size_must_be_described(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "free.onnx", size_hw=("height", "width"))
    with pytest.raises(ArtifactError, match=r"images of any size; say .* as rgb-float-imagenet-256x128"):
        ForeignOnnxBackend(path, IMAGENET, "cpu")
    assert ForeignOnnxBackend(path, f"{IMAGENET}-32x16", "cpu").sidecar.input_size_hw == SIZE_HW
    fixed = write_foreign(tmp_path / "fixed.onnx")
    with pytest.raises(ArtifactError, match=r"described as 64 x 16; leave the size out"):
        ForeignOnnxBackend(fixed, f"{IMAGENET}-64x16", "cpu")


@pytest.mark.parametrize(
    ("change", "words", "message"),
    [
        ({"outputs": ("a", "b")}, IMAGENET, r"several outputs: a .*, b .*; name the embedding.*imagenet:a"),
        ({}, f"{IMAGENET}:logits", r"has no output 'logits'; it gives output tensor\(float\)"),
        ({}, "rgb-half-imagenet", r"takes float, described as half"),
        ({"dtype": TensorProto.UINT8}, IMAGENET, r"takes uint8, described as float"),
        ({"channels_last": True}, IMAGENET, r"not 3 channels where nchw has them.*rgb-float-imagenet-nhwc"),
        ({"dimensions": 3}, IMAGENET, r"must be \(N, D\) or \(N, D, 1, 1\), got \(1, 2, 5\)"),
    ],
)
def test_a_model_that_is_not_as_described_is_told(
    change: dict[str, object], words: str, message: str, tmp_path: Path
) -> None:
    path = write_foreign(tmp_path / "foreign.onnx", **change)  # type: ignore[arg-type]
    with pytest.raises(ArtifactError, match=message) as caught:
        ForeignOnnxBackend(path, words, "cpu")
    assert "foreign.onnx" in str(caught.value)


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is not there"):
        open_backend(tmp_path / "none.onnx", "cpu", input_description=IMAGENET)
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(InputError, match="cannot be loaded"):
        open_backend(tmp_path / "text.onnx", "cpu", input_description=IMAGENET)


def test_without_a_description_the_error_says_how_to_give_one(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "foreign.onnx")
    with pytest.raises(ArtifactError, match=r"no sidecar.*--input rgb-float-imagenet"):
        open_backend(path, "cpu")


def test_a_sidecar_goes_before_a_description(tiny_artifact: Path) -> None:
    assert isinstance(open_backend(tiny_artifact, "cpu", input_description=IMAGENET), OnnxBackend)


def test_a_description_is_for_onnx_files(tmp_path: Path) -> None:
    (tmp_path / "model.engine").write_bytes(b"plan")
    for model in (tmp_path, tmp_path / "model.engine"):
        with pytest.raises(InputError, match=r"can be described of \.onnx files only"):
            open_backend(model, input_description=IMAGENET)


@given(st.permutations(["bgr", "half", "signed", "nhwc", "256x128"]), st.sampled_from(["", "out", "a:b-c"]))
def test_words_may_come_in_any_order(words: list[str], output: str) -> None:
    text = "-".join(words) + (f":{output}" if output else "")
    expected = InputDescription(text, "bgr", "float16", "signed", "nhwc", (256, 128), output)
    assert parse_input_description(text) == expected


@given(st.text(st.sampled_from("rgb-float25x1unitmag8"), max_size=24))
def test_any_text_is_a_description_or_an_error_that_lists_the_words(text: str) -> None:
    try:
        found = parse_input_description(text)
    except InputError as error:
        assert "rgb or bgr" in str(error)  # noqa: PT017
        assert "imagenet" in str(error)  # noqa: PT017
    else:
        assert found.color_order in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is no word"),
        ("rgb-float-imagnet", "'imagnet' is no word"),
        ("rgb-bgr-float-unit", "names both rgb and bgr"),
        ("float-imagenet", "does not name the order of colours, such as rgb"),
        ("rgb-imagenet", "does not name the type of pixels, such as float"),
        ("rgb-float", "does not name the range of pixels, such as imagenet"),
        ("rgb-uint8-imagenet", "pixels of type uint8 are 0..255; leave imagenet out"),
        ("rgb-float-unit-0x128", "'0x128' is no word"),
    ],
)
def test_an_error_says_which_word(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_input_description(text)
