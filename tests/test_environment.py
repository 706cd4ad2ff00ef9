"""What is recorded of a machine, read from laid-out folders, and what is said about a change."""

from __future__ import annotations

import copy
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from hamr_edge import nvidia_smi
from hamr_edge.benchmarks.config import BenchConfig
from hamr_edge.benchmarks.environment import describe_environment
from hamr_edge.cpu_state import cpu_quota, in_virtual_machine
from hamr_edge.machine_state import machine_state, state_changes
from tests.machine_trees import DESKTOP, ORIN_NANO, write_nvidia_smi, write_program, write_tree

posix = pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins are shell scripts")
ADA = {
    "name": "NVIDIA RTX 4000 Ada Generation",
    "driver_version": "570.86.15",
    "pstate": "P2",
    "persistence_mode": "Enabled",
    "clocks.current.sm": "1500",
    "clocks.max.sm": "3105",
    "clocks.current.memory": "9001",
    "temperature.gpu": "61",
    "power.draw": "129.80",
    "power.limit": "130.00",
}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first when programs are looked for."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return folder


@posix
def test_a_jetson_tells_its_modes(tmp_path: Path, programs: Path) -> None:
    write_program(programs, "nvpmodel", "echo 'NV Fan Mode:quiet'; echo 'NV Power Mode: MAXN_SUPER'; echo 2")
    state = machine_state(write_tree(tmp_path, ORIN_NANO))
    assert state["jetson"] == {
        "model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        "release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64",
        "power_mode": "MAXN_SUPER",
        "gpu_clock_mhz": 1020,
        "gpu_max_clock_mhz": 1020,
        "gpu_pinned": True,
    }
    assert state["cpu"] == {
        "clock_mhz": 1510,
        "max_clock_mhz": 1510,
        "governors": ["schedutil"],
        "pinned": False,
        "load_average": 0.4,
    }
    assert state["temperatures_c"] == {"cpu-thermal": 51.25, "gpu-thermal": 49.5}
    assert state["virtual_machine"] is None
    assert state["gpus"] == []
    json.dumps(state)


@pytest.mark.parametrize("name", ["ga10b", "gv11b"])
def test_an_older_jetsons_gpu_is_found_by_its_folder(tmp_path: Path, name: str) -> None:
    files = {
        "etc/nv_tegra_release": "# R35 (release)\n",
        f"sys/class/devfreq/17000000.{name}/cur_freq": "306000000\n",
        f"sys/class/devfreq/17000000.{name}/min_freq": "306000000\n",
        f"sys/class/devfreq/17000000.{name}/max_freq": "918000000\n",
    }
    jetson = machine_state(write_tree(tmp_path, files))["jetson"]
    assert (jetson["gpu_clock_mhz"], jetson["gpu_max_clock_mhz"], jetson["gpu_pinned"]) == (306, 918, False)


@posix
@pytest.mark.parametrize("reasons", ["clocks_event_reasons.active", "clocks_throttle_reasons.active", None])
def test_a_desktops_gpus_are_asked_by_the_names_their_driver_knows(
    tmp_path: Path, programs: Path, reasons: str | None
) -> None:
    rows = [dict(ADA), {**ADA, "power.draw": "[N/A]", "persistence_mode": "Disabled", "pstate": "[Not Supported]"}]
    if reasons:
        rows[0][reasons] = "0x0000000000000024"
        rows[1][reasons] = "0x0000000000000001"
    write_nvidia_smi(programs, rows)
    state = machine_state(write_tree(tmp_path, DESKTOP))
    assert state["jetson"] is None
    assert state["virtual_machine"] is False
    first, second = state["gpus"]
    assert (first["clock_mhz"], first["max_clock_mhz"], first["temperature_c"]) == (1500, 3105, 61)
    assert (first["power_w"], first["power_limit_w"], first["persistence"], first["pstate"]) == (129.8, 130, True, "P2")
    assert first["throttled_by"] == (("power limit", "temperature (software)") if reasons else ())
    assert (second["power_w"], second["persistence"], second["pstate"], second["throttled_by"]) == (
        None,
        False,
        None,
        (),
    )


@posix
@pytest.mark.parametrize(
    "script", ["exit 9", "echo 'No devices were found'", "echo 'NVIDIA-SMI has failed'; exit 9", "echo 1,2"]
)
def test_an_nvidia_smi_that_fails_is_no_gpu(programs: Path, script: str) -> None:
    write_program(programs, "nvidia-smi", script)
    assert nvidia_smi.gpu_states() == []
    assert nvidia_smi.memory_used_mb("cuda:0") is None


@posix
def test_memory_is_that_of_the_gpu_that_cuda_sees(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nvidia_smi(programs, [{"memory.used": "100"}, {"memory.used": "2000"}])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert nvidia_smi.memory_used_mb("cuda:1") == pytest.approx(2000 * 1.048576)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert nvidia_smi.memory_used_mb("cuda:0") == pytest.approx(2000 * 1.048576)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"sys/fs/cgroup/cpu.max": "200000 100000\n"}, 2.0),
        ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "150000 100000\n"}, 1.5),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "800000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "50000 100000\n",
            },
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/docker/1\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us": "100000\n",
            },
            4.0,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/not/mounted/here\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            1.0,
        ),
        ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"sys/fs/cgroup/cpu.max": "nonsense\n", "proc/self/cgroup": "0::/../..\n"}, None),
        ({}, None),
    ],
)
def test_a_containers_time_limit_is_found(tmp_path: Path, files: dict[str, str], quota: float | None) -> None:
    assert cpu_quota(write_tree(tmp_path, files)) == quota


def test_a_time_limit_lowers_the_cores(tmp_path: Path) -> None:
    write_tree(tmp_path, {"sys/fs/cgroup/cpu.max": "50000 100000\n"})
    assert machine_state(tmp_path)["cores"] == 0.5


def test_a_virtual_machine_is_known(tmp_path: Path) -> None:
    assert in_virtual_machine(tmp_path) is None
    assert in_virtual_machine(write_tree(tmp_path, {"proc/cpuinfo": "flags : fpu hypervisor\n"})) is True
    assert in_virtual_machine(write_tree(tmp_path, {"proc/cpuinfo": "flags : fpu nohypervisor\n"})) is False


def test_this_machine_can_be_described() -> None:
    report = describe_environment(BenchConfig(threads=1))
    assert {"cpu", "gpus", "libraries", "date", "load_average", "state", "threads"} <= set(report)
    assert report["state"]["cores"] > 0
    json.dumps(report)
    given = {"cores": 1}
    assert describe_environment(BenchConfig(), given)["state"] is given


def _state(**changes: Any) -> dict[str, Any]:
    gpu = {"name": "A", "clock_mhz": 1800, "max_clock_mhz": 2000, "temperature_c": 50, "throttled_by": ()}
    jetson = {"power_mode": "MAXN", "gpu_pinned": True, "gpu_clock_mhz": 1020}
    state: dict[str, Any] = {
        "cores": 4,
        "cpu": {"clock_mhz": 3000, "load_average": 0.5},
        "temperatures_c": {"cpu-thermal": 50.0, "gone": 1.0},
        "gpus": [gpu],
        "jetson": jetson,
    }
    state = copy.deepcopy(state)
    for path, value in changes.items():
        *way, last = path.split("__")
        place: Any = state
        for key in way:
            place = place[int(key) if key.isdecimal() else key]
        place[last] = value
    return state


def test_a_quiet_machine_raises_no_doubt() -> None:
    assert state_changes(_state(), _state(cpu__load_average=4.9, temperatures_c={"cpu-thermal": 60.0})) == []
    nothing = _state(jetson=None, gpus=[], temperatures_c={}, cpu={"clock_mhz": None, "load_average": None})
    assert state_changes(nothing, nothing) == []


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ({"cpu__load_average": 2.5}, {}, "busy before it began: load 2.5 on 4 cores"),
        ({}, {"cpu__load_average": 6.5}, "the load rose from 0.5 to 6.5 on 4 cores"),
        ({}, {"cpu__clock_mhz": 2000}, "the CPU's clock fell from 3000 to 2000 MHz"),
        ({}, {"jetson__gpu_clock_mhz": 600}, "the GPU's pinned clock fell from 1020 to 600 MHz"),
        ({}, {"jetson__power_mode": "15W"}, "the power mode changed from MAXN to 15W"),
        ({"jetson__gpu_pinned": False}, {}, "pin it with 'sudo jetson_clocks'"),
        ({}, {"temperatures_c": {"cpu-thermal": 66.0}}, "cpu-thermal warmed from 50 to 66 degrees C"),
        ({}, {"gpus__0__temperature_c": 80}, "GPU 0, A warmed from 50 to 80 degrees C"),
        (
            {},
            {"gpus__0__throttled_by": ("power limit",)},
            "GPU 0, A, is held down by its power limit at 1800 MHz of 2000",
        ),
    ],
)
def test_each_change_has_its_sentence(before: dict[str, Any], after: dict[str, Any], words: str) -> None:
    sentences = state_changes(_state(**before), _state(**after))
    assert len(sentences) == 1
    assert words in sentences[0]


def test_a_load_as_high_as_the_cores_is_not_our_own_where_a_gpu_works() -> None:
    busy = _state(cpu__load_average=4.9)
    assert state_changes(_state(), busy) == []
    assert len(state_changes(_state(), busy, cpu_timed=False)) == 1
