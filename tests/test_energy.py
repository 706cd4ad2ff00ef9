"""Energy, from sensors laid out as kernels and NVIDIA's program give them."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from hamr_edge.benchmarks.energy import measure_energy
from hamr_edge.benchmarks.power_sensors import GpuSensor, PackageCounter, RailSensor, choose_sensor, find_sensors
from tests.machine_trees import AGX_ORIN_RAILS, DESKTOP, NANO_RAILS, ORIN_NANO, write_nvidia_smi, write_tree

posix = pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins are shell scripts")
PACKAGE = "sys/class/powercap/intel-rapl:0"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first when programs are looked for; it holds no nvidia-smi yet."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return folder


@pytest.mark.parametrize(
    ("files", "name", "watts"),
    [
        (ORIN_NANO, "ina3221 VDD_IN", 6.0),
        (AGX_ORIN_RAILS, "ina3221 VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0 + VDDQ_VDD2_1V8AO", 20.0),
        (NANO_RAILS, "ina3221 POM_5V_IN", 2.345),
    ],
)
@pytest.mark.usefixtures("programs")
def test_a_jetsons_rails_are_found(tmp_path: Path, files: dict[str, str], name: str, watts: float) -> None:
    (sensor,) = find_sensors(write_tree(tmp_path, files))
    assert isinstance(sensor, RailSensor)
    assert sensor.name == name
    assert sensor.read_watts() == pytest.approx(watts)
    assert choose_sensor([sensor], "cuda:0") is choose_sensor([sensor], "cpu") is sensor


@posix
def test_a_desktop_has_one_sensor_a_gpu_and_one_for_its_processor(tmp_path: Path, programs: Path) -> None:
    rows = [{"index": str(index), "power.draw": draw} for index, draw in enumerate(("55.5", "[N/A]", "20.0"))]
    write_nvidia_smi(programs, rows)
    sensors = find_sensors(write_tree(tmp_path, DESKTOP))
    assert [sensor.name for sensor in sensors] == [
        "nvidia-smi power.draw of GPU 0",
        "nvidia-smi power.draw of GPU 2",
        "rapl package-0",
    ]
    assert [choose_sensor(sensors, device) for device in ("cuda:0", "cuda:1", "cuda:2", "cpu")] == [
        sensors[0],
        None,
        sensors[1],
        sensors[2],
    ]
    gpu = sensors[1]
    assert isinstance(gpu, GpuSensor)
    assert gpu.read_watts() is None  # closed
    with gpu:
        assert [gpu.read_watts() for _ in range(3)] == [20.0] * 3
    assert gpu.read_watts() is None


@pytest.mark.usefixtures("programs")
def test_what_does_not_answer_is_no_sensor(tmp_path: Path) -> None:
    assert find_sensors(tmp_path) == []
    root = write_tree(tmp_path, {**ORIN_NANO, **DESKTOP})
    (root / "sys/class/hwmon/hwmon1/curr1_input").unlink()
    (root / PACKAGE / "energy_uj").unlink()
    assert find_sensors(root) == []
    assert measure_energy(lambda: None, 1, 0.1, None) is None


class _Machine:
    """An x86 processor's counter, and time that passes only as told."""

    def __init__(self, root: Path, turn_uj: int) -> None:
        self.file = write_tree(root, DESKTOP) / PACKAGE / "energy_uj"
        self.turn_uj = turn_uj
        (root / PACKAGE / "max_energy_range_uj").write_text(str(turn_uj))
        self.now = 0.0
        self.used_uj = int(self.file.read_text())

    def pass_time(self, seconds: float, watts: float) -> None:
        self.now += seconds
        self.used_uj += round(1e6 * seconds * watts)
        self.file.write_text(f"{self.used_uj % self.turn_uj}\n")


@pytest.mark.parametrize("turn_uj", [262143328850, 90_000_000])
@pytest.mark.usefixtures("programs")
def test_a_counter_is_read_before_and_after(tmp_path: Path, turn_uj: int) -> None:
    machine = _Machine(tmp_path, turn_uj)
    (sensor,) = find_sensors(tmp_path)
    energy = measure_energy(
        lambda: machine.pass_time(0.25, 20.0),
        8,
        4.0,
        sensor,
        clock=lambda: machine.now,
        sleep=lambda seconds: machine.pass_time(seconds, 5.0),
    )
    assert energy is not None
    assert (energy.sensor, energy.batch, energy.samples) == ("rapl package-0", 8, 2)
    assert energy.watts == pytest.approx(20.0)
    assert energy.idle_watts == pytest.approx(5.0)
    assert energy.millijoules_per_image == pytest.approx(1000 * 20 * 0.25 / 8)


@pytest.mark.usefixtures("programs")
def test_packages_are_summed_and_each_may_begin_anew(tmp_path: Path) -> None:
    second = {"name": "package-1\n", "energy_uj": "0\n", "max_energy_range_uj": "100000000\n"}
    write_tree(tmp_path, DESKTOP)
    write_tree(tmp_path, {f"sys/class/powercap/intel-rapl:2/{name}": text for name, text in second.items()})
    (sensor,) = find_sensors(tmp_path)
    assert isinstance(sensor, PackageCounter)
    assert sensor.name == "rapl package-0 + package-1"
    assert sensor.joules_between((10.0, 99.0), (12.0, 1.0)) == pytest.approx(4.0)


@pytest.mark.usefixtures("programs")
def test_power_is_sampled_while_the_model_runs_and_before(tmp_path: Path) -> None:
    root = write_tree(tmp_path, ORIN_NANO)
    (sensor,) = find_sensors(root)
    assert isinstance(sensor, RailSensor)
    sensor.settle_s, sensor.interval_s = 0.05, 0.01
    current = root / "sys/class/hwmon/hwmon1/curr1_input"
    runs = []

    def run() -> None:
        if not runs:
            current.write_text("3000\n")
        runs.append(time.perf_counter())
        time.sleep(0.01)

    energy = measure_energy(run, 4, 0.3, sensor)
    assert energy is not None
    assert energy.idle_watts == pytest.approx(6.0)
    assert energy.watts == pytest.approx(15.0)
    assert 3 <= energy.samples <= 40
    spacing_s = (runs[-1] - runs[0]) / (len(runs) - 1)
    assert energy.millijoules_per_image == pytest.approx(1000 * 15 * spacing_s / 4, rel=0.5)


@pytest.mark.usefixtures("programs")
def test_a_sensor_that_stops_answering_gives_no_energy(tmp_path: Path) -> None:
    root = write_tree(tmp_path, ORIN_NANO)
    (sensor,) = find_sensors(root)
    sensor.settle_s = 0.0
    (root / "sys/class/hwmon/hwmon1/in1_input").unlink()
    assert measure_energy(lambda: time.sleep(0.001), 1, 0.02, sensor) is None


@pytest.mark.usefixtures("programs")
def test_a_model_that_fails_leaves_no_thread_behind(tmp_path: Path) -> None:
    (sensor,) = find_sensors(write_tree(tmp_path, ORIN_NANO))
    sensor.settle_s = 0.0
    runs: list[int] = []

    def run() -> None:
        runs.append(1)
        if len(runs) > 1:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        measure_energy(run, 1, 0.05, sensor)
    assert len(runs) == 2


@posix
def test_a_gpu_is_sampled_by_one_program(tmp_path: Path, programs: Path) -> None:
    write_nvidia_smi(programs, [{"index": "0", "power.draw": "100.0"}])
    (sensor,) = find_sensors(tmp_path)
    sensor.settle_s = 0.0
    energy = measure_energy(lambda: time.sleep(0.005), 1, 0.1, sensor)
    assert energy is not None
    assert (energy.watts, energy.idle_watts) == (100.0, 100.0)
    assert energy.samples >= 2
