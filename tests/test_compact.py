from __future__ import annotations

import builtins
import json
from dataclasses import replace
from pathlib import Path
from shutil import copyfile

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from rich.console import Console

from hamr_edge.backend import open_backend
from hamr_edge.dataset import JUNK_IDENTITY, open_dataset, read_crop
from hamr_edge.errors import GateError, InputError, UnavailableError
from hamr_edge.evaluation import evaluate
from hamr_edge.export.compact import Projection, describe_compact, learn_from_dataset, learn_projection, unit_rows
from hamr_edge.export.compact_figure import draw_dimensions
from hamr_edge.export.compact_report import CompactReport, dimension_table, report_dimensions
from hamr_edge.export.deploy_graph import DeployNetwork
from hamr_edge.export.onnx_export import export_onnx
from hamr_edge.export.publish import SourceEmbeddings, publish
from hamr_edge.export.raw_embeddings import embed_raw, embed_raw_files
from hamr_edge.export.search_time import measure_search_ms
from hamr_edge.preprocess import stack_crops
from hamr_edge.scored_crops import choose_crops
from hamr_edge.sidecar import load_sidecar
from hamr_edge.trainer.augment import normalise
from hamr_edge.trainer.checkpoint import load_checkpoint
from hamr_edge.trainer.network import Hamr
from hamr_edge.trainer.synthetic import random_crops
from tests.test_network import small_network

DIM = 5


def rows(count: int, width: int, seed: int = 0) -> np.ndarray:
    """Correlated rows away from the origin, of a spread that falls from direction to direction."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(count, width)) * np.linspace(3, 0.3, width) @ rng.normal(size=(width, width))
    return (mixed + rng.normal(size=width)).astype(np.float32)


@pytest.fixture(scope="module")
def network(checkpoint: Path) -> Hamr:
    return load_checkpoint(checkpoint)[0]


@pytest.fixture(scope="module")
def projection(network: Hamr, synthetic_dataset: Path) -> Projection:
    return learn_from_dataset(network, open_dataset(synthetic_dataset), DIM)


@pytest.mark.parametrize(("count", "width"), [(200, 12), (30, 100), (40, 40)])
def test_the_projection_is_the_textbooks(count: int, width: int) -> None:
    embeddings = rows(count, width)
    projection = learn_projection(embeddings, DIM, whitening=0.5)
    covariance = np.cov(embeddings.astype(np.float64), rowvar=False)
    variances, directions = np.linalg.eigh(covariance)
    variances, directions = variances[::-1][:DIM], directions[:, ::-1][:, :DIM]
    np.testing.assert_allclose(projection.mean, embeddings.mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(projection.variances, variances, rtol=1e-9)
    np.testing.assert_allclose(np.abs(projection.matrix), np.abs(directions * variances**-0.25), atol=1e-8)
    assert projection.variance_share == pytest.approx(variances.sum() / np.trace(covariance))
    assert projection.crops == count


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 40), st.integers(2, 40), st.floats(0, 1), st.data())
def test_training_embeddings_keep_a_share_of_their_spread(
    count: int, width: int, whitening: float, data: st.DataObject
) -> None:
    embeddings = rows(count, width)
    dim = data.draw(st.integers(1, min(count - 1, width)))
    projection = learn_projection(embeddings, dim, whitening)
    result = (embeddings - projection.mean) @ projection.matrix
    np.testing.assert_allclose(result.mean(axis=0), 0, atol=1e-6)
    expected = np.diag(projection.variances ** (1 - whitening))
    covariance = np.cov(result, rowvar=False).reshape(dim, dim)
    np.testing.assert_allclose(covariance, expected, atol=1e-6 * expected.max())
    largest = np.abs(projection.matrix).argmax(axis=0)
    assert (projection.matrix[largest, np.arange(dim)] > 0).all()


def test_full_whitening_gives_unit_covariance() -> None:
    embeddings = rows(50, 80)
    projection = learn_projection(embeddings, 49, whitening=1)
    result = (embeddings - projection.mean) @ projection.matrix
    np.testing.assert_allclose(np.cov(result, rowvar=False), np.eye(49), atol=1e-6)
    assert projection.variance_share == pytest.approx(1)


def test_the_first_values_are_those_of_a_smaller_projection() -> None:
    embeddings = rows(30, 100)
    large = learn_projection(embeddings, 3, most=20)
    assert large.dim == 20
    small = learn_projection(embeddings, 3)
    np.testing.assert_array_equal(large.first(3).matrix, small.matrix)
    assert large.first(3).variance_share == small.variance_share
    assert learn_projection(embeddings, 3, most=1000).dim == 29
    with pytest.raises(InputError, match=r"must be in 1\.\.20, got 21"):
        large.first(21)


def test_equal_embeddings_give_equal_projections(network: Hamr, synthetic_dataset: Path) -> None:
    dataset = open_dataset(synthetic_dataset)
    one, same, other = (learn_from_dataset(network, dataset, DIM, seed, max_crops=16) for seed in (0, 0, 1))
    assert one.matrix.tobytes() == same.matrix.tobytes()
    assert one.mean.tobytes() == same.mean.tobytes()
    assert one.crops == 16
    assert not np.array_equal(one.matrix, other.matrix)


def test_what_cannot_be_learned_is_refused(network: Hamr, synthetic_dataset: Path) -> None:
    dataset = open_dataset(synthetic_dataset)
    with pytest.raises(InputError, match="--embedding-dim needs --data"):
        learn_from_dataset(network, None, DIM)
    with pytest.raises(InputError, match=r"in 1\.\.9 for 10 training crops and 12 values .* got 10"):
        learn_from_dataset(network, dataset, 10, max_crops=10)
    with pytest.raises(InputError, match=r"in 1\.\.12 for \d+ training crops and 12 values .* got 13"):
        learn_from_dataset(network, dataset, 13)
    with pytest.raises(InputError, match=r"in 1\.\.0 for 0 training crops"):
        learn_from_dataset(network, replace(dataset, train=dataset.train.select(np.array([], int))), 1)
    with pytest.raises(InputError, match=r"in 1\.\.12 .* got 0"):
        learn_projection(rows(20, 12), 0)
    with pytest.raises(InputError, match=r"whitening must be in 0\.\.1, got 1\.5"):
        learn_projection(rows(20, 12), 3, whitening=1.5)
    with pytest.raises(InputError, match=r"at least 2 crops, got \(1, 12\)"):
        learn_projection(rows(1, 12), 1)


def test_crops_that_span_too_little_are_refused() -> None:
    few = rows(4, 12)
    with pytest.raises(InputError, match="20 training crops differ in 3 directions only, got embedding dimension 4"):
        learn_projection(np.tile(few, (5, 1)), 4)
    with pytest.raises(InputError, match="differ in 0 directions only"):
        learn_projection(np.ones((5, 12), np.float32), 1)
    few[2, 7] = np.nan
    with pytest.raises(InputError, match=r"embedding 2 of the training crops \(and 0 more\) is not finite"):
        learn_projection(few, 2)


def test_raw_embeddings_are_the_networks_before_normalisation() -> None:
    network = small_network().float().eval()
    crops = np.random.default_rng(0).integers(0, 256, (35, 96, 32, 3), np.uint8)
    raw = embed_raw(network, crops)
    with torch.no_grad():
        parts = network(normalise(torch.tensor(crops))).embedding
        unit = network.embed(normalise(torch.tensor(crops)))
    np.testing.assert_allclose(raw, parts.transpose(0, 1).flatten(1), rtol=0, atol=1e-3)
    np.testing.assert_allclose(unit_rows(raw), unit, rtol=0, atol=1e-6)
    assert embed_raw(network, crops[:0]).shape == (0, raw.shape[1])


def test_raw_embeddings_of_files_are_those_of_their_crops(network: Hamr, synthetic_dataset: Path) -> None:
    paths = open_dataset(synthetic_dataset).query.paths
    crops = stack_crops([read_crop(path) for path in paths], network.config.input_size_hw)
    np.testing.assert_allclose(embed_raw_files(network, paths), embed_raw(network, crops), rtol=0, atol=1e-5)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_folding_equals_the_projection_behind_the_network(whitening: float) -> None:
    network = small_network().float().eval()
    rng = np.random.default_rng(0)
    # Crops of different brightness and contrast, or else a random network's embeddings hardly differ.
    crops = np.clip(rng.normal(rng.uniform(40, 220, (64, 1, 1, 3)), 40, (64, 96, 32, 3)), 0, 255).astype(np.uint8)
    raw = embed_raw(network, crops)
    projection = learn_projection(raw, 20, whitening)
    centred = raw[:9].astype(np.float64) - raw.mean(axis=0, dtype=np.float64)
    expected = centred @ projection.matrix
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    deploy = DeployNetwork(network, projection)
    with torch.no_grad():
        compact = deploy(torch.tensor(crops[:9])).numpy()
    assert compact.shape == (9, 20)
    assert compact.dtype == np.float32
    assert np.einsum("nd,nd->n", compact, expected).min() > 0.99999
    np.testing.assert_allclose(compact, projection.apply(raw[:9]), rtol=0, atol=1e-4)


def test_a_projection_of_another_network_is_refused(network: Hamr) -> None:
    projection = learn_projection(rows(20, 30), DIM)
    with pytest.raises(InputError, match="embeddings of 30 values, the network gives 12"):
        DeployNetwork(network, projection)


@pytest.fixture(scope="module")
def source(network: Hamr, projection: Projection) -> SourceEmbeddings:
    crops = stack_crops(random_crops(12, seed=0), network.config.input_size_hw)
    return SourceEmbeddings(crops, tuple(map(str, range(12))), projection.apply(embed_raw(network, crops)))


@pytest.fixture(scope="module")
def artifact(
    network: Hamr,
    projection: Projection,
    checkpoint: Path,
    source: SourceEmbeddings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A compact artifact, published: checked against the checkpoint with the projection behind it."""
    path = tmp_path_factory.mktemp("compact") / "model.fp32.onnx"
    with open_backend(checkpoint, "cpu") as reference:
        sidecar = describe_compact(replace(reference.sidecar, max_batch=8), projection, "figures", seed=0)
    publish(path, sidecar, lambda file: export_onnx(network, file, 8, projection=projection), source, 0.99999)
    return path


def test_the_sidecar_says_how_it_was_made(artifact: Path, projection: Projection) -> None:
    sidecar = load_sidecar(artifact)
    assert sidecar.embedding_dim == DIM
    assert sidecar.parity["min_cosine"] >= 0.99999
    assert sidecar.compact == {
        "sha256": projection.to_json()["sha256"],
        "source_dim": 12,
        "crops": projection.crops,
        "variance_share": pytest.approx(projection.variance_share, abs=1e-6),
        "whitening": 0.5,
        "dataset": "figures",
        "seed": 0,
    }


def test_the_artifact_gives_compact_embeddings(artifact: Path, source: SourceEmbeddings) -> None:
    with open_backend(artifact, "cpu") as backend:
        np.testing.assert_allclose(backend.infer(source.crops), source.embeddings, rtol=0, atol=1e-4)


def test_an_artifact_of_another_projection_is_not_published(
    artifact: Path, network: Hamr, projection: Projection, source: SourceEmbeddings, tmp_path: Path
) -> None:
    plain = replace(projection, matrix=projection.matrix * projection.variances**0.25, whitening=0.0)
    other = replace(source, embeddings=plain.apply(embed_raw(network, source.crops)))
    with pytest.raises(GateError, match="has cosine"):
        publish(tmp_path / "other.onnx", load_sidecar(artifact), lambda file: copyfile(artifact, file), other, 0.99999)


def test_the_last_layer_is_one_plain_product(artifact: Path, network: Hamr) -> None:
    graph = onnx.load(artifact).graph
    weights = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    last = [node for node in graph.node if node.op_type in ("MatMul", "Gemm")][-1]
    assert last.op_type == "MatMul"
    assert weights[last.input[1]].shape == (network.config.parts * network.config.reduced_dim, DIM)
    assert weights[last.input[1]].dtype == np.float32
    (embeddings,) = graph.output
    assert embeddings.type.tensor_type.elem_type == TensorProto.FLOAT
    assert embeddings.type.tensor_type.shape.dim[1].dim_value == DIM


@pytest.fixture(scope="module")
def report(network: Hamr, synthetic_dataset: Path) -> CompactReport:
    dataset = open_dataset(synthetic_dataset)
    largest = learn_from_dataset(network, dataset, DIM, most=2048)
    crops = choose_crops(dataset)
    return report_dimensions(network, crops.query, crops.gallery, largest, DIM, dataset.name, searched=100)


def test_the_report_has_the_chosen_and_all_values(report: CompactReport, synthetic_dataset: Path) -> None:
    assert [(row.dim, row.compact, row.bytes_per_embedding) for row in report.rows] == [
        (DIM, True, 4 * DIM),
        (12, False, 48),
    ]
    assert all(0 < row.map <= 1 and 0 <= row.rank1 <= 1 and row.search_ms > 0 for row in report.rows)
    assert 0 < report.rows[0].variance_share < report.rows[1].variance_share == 1
    identities = open_dataset(synthetic_dataset).gallery.identities
    assert report.gallery == np.count_nonzero(identities != JUNK_IDENTITY) < len(identities)
    assert json.loads(json.dumps(report.to_json()))["rows"][1]["dim"] == 12


def test_the_reports_scores_are_the_models(
    report: CompactReport, artifact: Path, checkpoint: Path, synthetic_dataset: Path
) -> None:
    dataset = open_dataset(synthetic_dataset)
    for row, model in zip(report.rows, (artifact, checkpoint), strict=True):
        with open_backend(model, "cpu") as backend:
            scores = evaluate(backend, dataset)
        assert (row.rank1, row.map) == pytest.approx((scores.rank1, scores.map), abs=1e-6)


def test_wide_embeddings_are_searched_more_slowly() -> None:
    times = measure_search_ms((4, 4096), vectors=2000, rounds=3)
    assert 0 < times[4] < times[4096]


def test_a_width_that_was_not_learned_is_not_reported(
    network: Hamr, projection: Projection, synthetic_dataset: Path
) -> None:
    dataset = open_dataset(synthetic_dataset)
    with pytest.raises(InputError, match=r"must be in 1\.\.5, got 6"):
        report_dimensions(network, dataset.query, dataset.gallery, projection, 6, "figures")


def test_the_table_shows_every_row(report: CompactReport) -> None:
    console = Console(width=140)
    with console.capture() as capture:
        console.print(dimension_table(report))
    text = capture.get()
    assert "whitening 0.5" in text
    assert "12 (all)" in text
    assert f"{100 * report.rows[0].map:.2f} %" in text
    assert f"{100 * (report.rows[0].map - report.rows[1].map):+.2f}" in text


def test_the_plot_is_a_png_and_the_same_each_time(report: CompactReport) -> None:
    pytest.importorskip("matplotlib")
    image = draw_dimensions(report)
    assert image.startswith(b"\x89PNG")
    assert image == draw_dimensions(report)


def test_without_matplotlib_the_extra_is_named(report: CompactReport, monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def no_matplotlib(name: str, *args: object, **kwargs: object) -> object:
        if name.startswith("matplotlib"):
            raise ImportError("No module named 'matplotlib'")
        return real_import(name, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", no_matplotlib)
    with pytest.raises(UnavailableError, match=r"hamr-edge\[figures\]"):
        draw_dimensions(report)
