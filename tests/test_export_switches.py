"""Every switch of the network goes through export and its check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hamr_edge.export.config import ExportConfig
from hamr_edge.export.exporting import export_checkpoint
from hamr_edge.trainer.checkpoint import CheckpointInfo, save_checkpoint
from hamr_edge.trainer.config import TrainConfig
from tests.test_network import CLASSES, small_network


@pytest.mark.parametrize(
    "switches",
    [
        {"attention": "cat+c+s", "stages": (2, 4)},
        {"attention": "c+cat", "pooling": "gem", "stripes": 2},
        {"partition": "pcb", "pooling": "max", "attention": "cat"},
        {"last_stride": 2, "stages": (4,), "attention": "cat+s", "stripes": 1, "pooling": "avg"},
    ],
    ids=str,
)
def test_a_network_with_other_switches_is_exported(switches: dict[str, Any], tmp_path: Path) -> None:
    network = small_network(size_hw=(64, 32), **{"stripes": 2, **switches}).float()
    save_checkpoint(tmp_path, network, CheckpointInfo(TrainConfig(network.config), CLASSES, "none"))
    (path,) = export_checkpoint(tmp_path, tmp_path, ExportConfig(max_batch=3)).artifacts
    assert path.is_file()
