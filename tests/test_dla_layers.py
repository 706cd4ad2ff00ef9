"""DLAs: none is at hand, so a configuration that answers for one stands in for the builder's."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hamr_edge.errors import InputError
from hamr_edge.export import engine_build, engine_builder
from hamr_edge.export.dla_layers import count_dla_layers
from hamr_edge.export.engine_build import parse_network
from hamr_edge.export.engine_builder import build_engine, inspect_build
from hamr_edge.export.engine_options import EngineOptions
from tests.nvidia_builder import nvidia_builder


def test_the_layers_that_can_be_on_it_are_counted(tiny_artifact: Path, caplog: pytest.LogCaptureFixture) -> None:
    trt = nvidia_builder()
    network = parse_network(trt, tiny_artifact).network
    pooling = SimpleNamespace(can_run_on_DLA=lambda layer: layer.type == trt.LayerType.POOLING)
    assert count_dla_layers(trt, network, pooling, 1) == 1
    assert not caplog.records
    nothing = SimpleNamespace(can_run_on_DLA=lambda layer: False)
    assert count_dla_layers(trt, network, nothing, 1) == 0
    assert f"none of {network.num_layers} layers can run on a DLA" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


@pytest.mark.parametrize("run", [build_engine, inspect_build])
def test_an_engine_that_would_be_for_the_gpu_alone_is_refused(
    run: Any, tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check comes after the builder's own of the core, which no builder here passes."""
    trt = nvidia_builder()
    monkeypatch.setattr(engine_build, "apply_options", lambda *args: None)
    options = EngineOptions(dla_core=0)
    with pytest.raises(InputError, match="would take each from 1 to 8, all of it on the GPU; add --batch 1"):
        run(trt, tiny_artifact, 8, options)
    monkeypatch.setattr(engine_builder, "count_dla_layers", lambda *args: 3)
    made = run(trt, tiny_artifact, 1, options)
    assert (made.details["dla_layers"] if run is build_engine else made.dla_layers) == 3
