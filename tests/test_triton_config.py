from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from hamr_edge.errors import GateError
from hamr_edge.export.triton_config import format_config
from hamr_edge.export.triton_repository import WrittenModel, check_model, write_repository
from hamr_edge.sidecar import load_sidecar, sidecar_path
from tests.artifacts import write_tiny_artifact
from tests.preset_model import run
from tests.triton_model import edit


@pytest.mark.parametrize(
    ("suffix", "precision", "platform", "kind"),
    [
        (".engine", "int8", "tensorrt_plan", "KIND_GPU"),
        (".onnx", "int8-cpu", "onnxruntime_onnx", "KIND_CPU"),
        (".onnx", "fp16", "onnxruntime_onnx", "KIND_AUTO"),
    ],
)
def test_what_runs_it_follows_from_the_artifact(
    tiny_artifact: Path, suffix: str, precision: str, platform: str, kind: str
) -> None:
    sidecar = replace(load_sidecar(tiny_artifact), precision=precision)
    config = format_config(Path(f"m{suffix}"), sidecar, "m", 0)
    assert f'platform: "{platform}"' in config
    assert f"kind: {kind}" in config


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("TYPE_UINT8 dims: [ 32, 16, 3 ] }", "TYPE_FP32 dims: [ 32, 16, 3 ] }", "input is"),
        ("dims: [ 32, 16, 3 ] }", "dims: [ 3, 32, 16 ] }", "input is"),
        ("dims: [ 12 ]", "dims: [ 512 ]", "output is"),
        ('name: "embeddings"', 'name: "output"', "output is"),
        ("max_batch_size: 8", "max_batch_size: 64", "max_batch_size is 64"),
        ("preferred_batch_size: [ 2, 4, 8 ]", "preferred_batch_size: [ 16 ]", r"preferred_batch_size is \[16\]"),
        ("preferred_batch_size: [ 2, 4, 8 ]", "preferred_batch_size: [ 0 ]", r"preferred_batch_size is \[0\]"),
        ("max_batch_size: 8", "max_batch_size: 0", "max_batch_size is 0, the artifact takes 1 to 8"),
        ("onnxruntime_onnx", "tensorrt_plan", "platform"),
        ('name: "model"', 'name: "people"', "name is"),
        ("max_batch_size", "max_batch", "Triton's schema"),
        ("dims: [ 32, 16, 3 ] random_data", "dims: [ 1, 32, 16, 3 ] random_data", "model_warmup"),
        ("artifact_sha256", "sha256", "artifact_sha256"),
        ('key: "images"', 'key: "imgs"', r"'batch of 1' feeds \['imgs'\], the artifact's input is 'images'"),
        ("\n  batch_size: 8", "\n  batch_size: 64", "'batch of 8' has batch_size 64, max_batch_size is 8"),
        (" random_data: true", "", "says nothing of the data; add random_data"),
        ("random_data: true", 'input_data_file: "crops"', r"models/model/warmup/crops, which is not there"),
        ("dims: [ 32, 16, 3 ]", "dims: [ 32, 16, 3 ] reshape { shape: [ 1, 32, 16, 3 ] }", "input is .*reshape"),
        ("dims: [ 12 ]", "dims: [ 12 ] reshape { shape: [ 3, 4 ] }", "output is .*reshape"),
        ("dims: [ 32, 16, 3 ]", "dims: [ 32, 16, 3 ] format: FORMAT_NCHW", "input is .*FORMAT_NCHW"),
        ("dims: [ 32, 16, 3 ]", "dims: [ 32, 16, 3 ] is_shape_tensor: true", "input is .*is_shape_tensor"),
        ("\nmax_batch", '\nbackend: "pytorch"\nmax_batch', "and backend 'pytorch', the artifact's 'onnxruntime_onnx'"),
        ('platform: "onnxruntime_onnx"', 'default_model_filename: "1.onnx"', "platform is '' and backend ''"),
        ("\nmax_batch", '\ndefault_model_filename: "a.onnx"\nmax_batch', "'a.onnx', which is not in version 1"),
        ("\nmax_batch", '\ncc_model_filenames { key: "8.7" value: "b" }\nmax_batch', "'8.7' is 'b', which is not"),
        ("\nmax_batch", "\nversion_policy { specific { versions: [ 1, 7 ] } }\nmax_batch", r"names \[7\]"),
        ("\nmax_batch", "\nversion_policy { latest { num_versions: 0 } }\nmax_batch", "serves no version"),
        ("\nmax_batch", "\nmodel_transaction_policy { decoupled: true }\nmax_batch", "decoupled is true"),
        ("dynamic_batching {\n  pref", "sequence_batching { oldest { max_candidate_sequences: 4 } }\n# ", "schema"),
        ("name", "batch_input { kind: BATCH_ELEMENT_COUNT }\nname", "batch_input is set"),
    ],
)
def test_an_edited_configuration_is_held_against_the_artifact(
    triton_model: WrittenModel, old: str, new: str, message: str
) -> None:
    edit(triton_model, old, new)
    with pytest.raises(GateError, match=message):
        check_model(triton_model.folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('platform: "onnxruntime_onnx"', 'backend: "onnxruntime"'),
        ('platform: "onnxruntime_onnx"', 'platform: "onnxruntime_onnx" backend: "onnxruntime"'),
        ('platform: "onnxruntime_onnx"', 'default_model_filename: "model.onnx"'),
        ('name: "model"\n', ""),
        ("count: 1 kind: KIND_AUTO", "count: 2 kind: KIND_CPU"),
        ("max_queue_delay_microseconds: 5000", "max_queue_delay_microseconds: 100"),
        ("preferred_batch_size: [ 2, 4, 8 ]", ""),
        ("dims: [ 32, 16, 3 ]", "dims: [ 32, 16, 3 ] format: FORMAT_NHWC reshape { shape: [ 32, 16, 3 ] }"),
        ("batch_size: 1\n", "batch_size: 0\n"),
        ("random_data", "zero_data"),
        ("\nmax_batch", "\nversion_policy { all { } }\nmax_batch"),
        ("name", "# mine: é\nname"),
    ],
)
def test_what_triton_takes_is_no_error_and_stays(
    tmp_path: Path, triton_model: WrittenModel, old: str, new: str
) -> None:
    text = edit(triton_model, old, new)
    check_model(triton_model.folder)
    write_tiny_artifact(tmp_path / "model.onnx", seed=1)
    after = write_repository(tmp_path / "model.onnx", tmp_path / "models")
    assert (after.version, after.keeps_config) == (2, True)
    kept = (triton_model.folder / "config.pbtxt").read_text()
    stamp = re.compile("[0-9a-f]{64}")
    assert kept != text
    assert stamp.sub("", kept) == stamp.sub("", text)
    check_model(triton_model.folder)


def test_fewer_people_at_once_are_the_users_choice(triton_model: WrittenModel) -> None:
    path = triton_model.folder / "config.pbtxt"
    text = re.sub(r"preferred_batch_size: .*", "", path.read_text())
    path.write_text(re.sub(r"batch_size: 8", "batch_size: 4", text))
    check_model(triton_model.folder)


def test_lint_lists_what_is_wrong(tmp_path: Path, triton_model: WrittenModel) -> None:
    result = run("lint", triton_model.folder)
    assert result.exception is None
    assert f"{triton_model.folder}: every field agrees with its artifact" in result.output
    edit(triton_model, 'key: "images"', 'key: "imgs"')
    result = run("lint", triton_model.folder)
    assert isinstance(result.exception, GateError)
    assert "error: model_warmup at config.pbtxt (triton): model_warmup 'batch of 1' feeds" in result.output
    edit(triton_model, "max_batch_size", "max_batch")
    assert "error: schema at config.pbtxt (triton)" in run("lint", triton_model.folder / "config.pbtxt").output
    edit(triton_model, "max_batch:", "max_batch_size:")
    sidecar_path(triton_model.folder / "1" / "model.onnx").unlink()
    assert "error: artifact at config.pbtxt (triton)" in run("lint", triton_model.folder).output


def test_triton_reads_every_field(tmp_path: Path, triton_schema: None) -> None:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    artifact = write_tiny_artifact(tmp_path / "model.onnx", max_batch=32)
    written = write_repository(artifact, tmp_path / "models", queue_delay_us=2500)
    assert (written.is_new, written.keeps_config, written.max_batch_size) == (True, False, 32)
    config = text_format.Parse((written.folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert (config.name, config.platform, config.max_batch_size) == ("model", "onnxruntime_onnx", 32)
    assert list(config.input[0].dims) == [32, 16, 3]
    assert config.input[0].data_type == model_config_pb2.TYPE_UINT8
    assert list(config.output[0].dims) == [12]
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 16, 32]
    assert config.dynamic_batching.max_queue_delay_microseconds == 2500
    assert [warm_up.batch_size for warm_up in config.model_warmup] == [1, 32]
    assert config.parameters["hamr_edge.artifact_sha256"].string_value == load_sidecar(artifact).artifact_sha256
