from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hamr_edge.embedding_space import MIN_AGREEMENT, EmbeddingSpace
from hamr_edge.engine_record import EngineRecord
from hamr_edge.errors import InputError
from hamr_edge.export.publish import SourceEmbeddings, publish, publish_unchecked
from hamr_edge.sidecar import Sidecar, load_sidecar
from tests.gallery_cases import SPACE

CHECKPOINT = Sidecar("c" * 64, (32, 16), 16, 8, "fp32", "c" * 64)


def _artifact(letter: str, precision: str = "fp32", **parity: object) -> Sidecar:
    return replace(CHECKPOINT, artifact_sha256=letter * 64, precision=precision, parity=parity)


FP32 = _artifact("1", min_cosine=0.9999999)
FP16 = _artifact("2", "fp16", min_cosine=0.99998)
INT8 = _artifact("3", "int8", min_cosine=0.97, held_out={"p01_cosine": 0.988})
OTHER_INT8 = _artifact("4", "int8-cpu", min_cosine=0.97, held_out={"p01_cosine": 0.988})
POOR_INT8 = _artifact("5", "int8", min_cosine=0.97, held_out={"p01_cosine": 0.97})
FINE_INT8 = _artifact("6", "int8", min_cosine=0.99, held_out={"p01_cosine": 0.9952})
UNCHECKED = _artifact("7", "fp16", unchecked="there is no GPU here")
RECORD = EngineRecord("tensorrt", "10.3.0", "8.7", "linux", "aarch64", {}, "model.onnx", checkpoint_sha256="c" * 64)
ENGINE = replace(FP16, artifact_sha256="8" * 64, source_sha256="2" * 64, engine=RECORD)
KNOWN_ENGINE = replace(ENGINE, parity={"min_cosine": 0.9995, "of_source": FP16.parity})


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        (FP32, FP32, True),
        (FP32, FP16, True),
        (CHECKPOINT, FP16, True),
        (FP32, INT8, True),
        (FP16, INT8, True),
        (INT8, INT8, True),
        (POOR_INT8, POOR_INT8, True),
        (UNCHECKED, UNCHECKED, True),
        (INT8, OTHER_INT8, False),  # 8.9 degrees each
        (FINE_INT8, FINE_INT8, True),
        (FINE_INT8, replace(FINE_INT8, artifact_sha256="9" * 64), True),  # 5.6 degrees each
        (FP32, POOR_INT8, False),
        (FP32, UNCHECKED, False),
        (FP32, ENGINE, False),  # of an older version: nothing is known of its ONNX
        (FP32, KNOWN_ENGINE, True),
        (INT8, KNOWN_ENGINE, True),
    ],
)
def test_which_artifacts_of_one_checkpoint_mix(one: Sidecar, other: Sidecar, agree: bool) -> None:
    for first, second in ((one, other), (other, one)):
        own, others = EmbeddingSpace.of(first), EmbeddingSpace.of(second)
        own.check_compatible(others, allow_mixed=True)
        if agree:
            own.check_compatible(others)
        else:
            with pytest.raises(InputError, match=f"not known to agree to a cosine of {MIN_AGREEMENT}; embed again"):
                own.check_compatible(others)


COMPACT = {"source_dim": 64, "dataset": "a", "seed": 0}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"source_sha256": "d" * 64},
            r"the checkpoint is dddddddddddd\.\.\., expected cccccccccccc\.\.\.; embed again",
        ),
        ({"embedding_dim": 8}, "the embedding width is 8 values, expected 16 values"),
        ({"input_size_hw": (32, 32)}, r"the input size is \(32, 32\), expected \(32, 16\)"),
        ({"compact": {}}, "the compact projection is none, expected {"),
        ({"compact": {**COMPACT, "seed": 1}}, "the compact projection is"),
        ({"compact": {**COMPACT, "sha256": "e" * 64}}, "the compact projection is"),
    ],
)
def test_other_spaces_are_never_mixed(change: dict[str, object], message: str) -> None:
    one = replace(FP32, compact={**COMPACT, "sha256": "f" * 64})
    own, other = EmbeddingSpace.of(one), EmbeddingSpace.of(replace(one, artifact_sha256="2" * 64, **change))
    with pytest.raises(InputError, match=message) as raised:
        own.check_compatible(other, allow_mixed=True)
    assert "111111111111" in str(raised.value)
    assert "222222222222" in str(raised.value)


def test_one_graph_with_other_weights_beside_it_is_another_space() -> None:
    own = EmbeddingSpace.of(FP32)
    with pytest.raises(InputError, match="the checkpoint is"):
        own.check_compatible(EmbeddingSpace.of(replace(FP32, source_sha256="d" * 64)), allow_mixed=True)


def test_a_projection_of_an_older_sidecar_is_known_by_what_it_says() -> None:
    old, new = replace(FP32, compact=COMPACT), replace(FP16, compact={**COMPACT, "sha256": "f" * 64})
    EmbeddingSpace.of(old).check_compatible(EmbeddingSpace.of(new))


def test_an_engine_is_of_its_onnxs_checkpoint() -> None:
    assert EmbeddingSpace.of(ENGINE).checkpoint_sha256 == "c" * 64
    assert EmbeddingSpace.of(ENGINE).agreement == -1
    # 1.8 degrees to the ONNX and 0.4 from there to the checkpoint.
    assert EmbeddingSpace.of(KNOWN_ENGINE).agreement == pytest.approx(np.cos(np.arccos(0.9995) + np.arccos(0.99998)))


def test_an_artifact_made_of_another_keeps_what_was_measured_of_that_one(tiny_artifact: Path, tmp_path: Path) -> None:
    from hamr_edge.backend import open_backend

    crops = np.random.default_rng(0).integers(0, 256, (8, 32, 16, 3), np.uint8)
    with open_backend(tiny_artifact, "cpu") as backend:
        source = SourceEmbeddings(crops, tuple("abcdefgh"), backend.infer(crops))
    first = load_sidecar(tiny_artifact)

    def write(part: Path) -> None:
        part.write_bytes(tiny_artifact.read_bytes())

    assert "of_source" not in publish(tmp_path / "a.onnx", first, write, source, 0.999).parity
    of_int8 = replace(first, parity=INT8.parity)
    parity = publish(tmp_path / "b.onnx", of_int8, write, source, 0.999).parity
    assert (parity["of_source"], parity["min_cosine"] > 0.999) == (INT8.parity, True)
    unchecked = publish_unchecked(tmp_path / "c.onnx", of_int8, write, "no GPU")
    assert load_sidecar(tmp_path / "c.onnx").parity == {"unchecked": "no GPU", "of_source": INT8.parity}
    assert EmbeddingSpace.of(unchecked).agreement == -1


def test_a_stamp_goes_to_json_and_back() -> None:
    assert EmbeddingSpace.from_json(json.loads(json.dumps(SPACE.to_json()))) == SPACE
    with pytest.raises(ValueError, match="unknown or missing entries"):
        EmbeddingSpace.from_json({**SPACE.to_json(), "more": 1})
    with pytest.raises(ValueError, match="wrong type"):
        EmbeddingSpace.from_json({**SPACE.to_json(), "compact": None})
    with pytest.raises(ValueError, match="compact projection must be a JSON object"):
        EmbeddingSpace.from_json({**SPACE.to_json(), "compact": "[]"})
    for agreement in (float("nan"), float("inf"), 10**400, "1"):
        with pytest.raises(ValueError, match="agreement must be a cosine"):
            EmbeddingSpace.from_json({**SPACE.to_json(), "agreement": agreement})


def test_an_agreement_that_is_no_number_counts_as_unmeasured() -> None:
    space = EmbeddingSpace.of(replace(FP16, parity={"min_cosine": float("nan")}))
    assert space.agreement == -1
    with pytest.raises(InputError, match="agreement not measured"):
        EmbeddingSpace.of(FP32).check_compatible(space)
