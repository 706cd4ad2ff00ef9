"""Sensors of power and energy that a machine brings: INA3221 on a Jetson, nvidia-smi, RAPL."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hamr_edge.cpu_state import read_number, read_text
from hamr_edge.nvidia_smi import query, smi_index
from hamr_edge.openable import Openable

_TOTAL_RAILS = ("VDD_IN", "POM_5V_IN")
"""Rails that carry all that the module takes: Orin Nano and NX, Xavier NX and TX2; Nano."""


@dataclass(slots=True)
class RailSensor(Openable):
    """Rails of Jetson's INA3221 monitors: millivolts times milliamperes, or milliwatts, summed."""

    name: str
    rails: tuple[tuple[Path, ...], ...]
    """Of each rail the files to multiply: volts and amperes, both in thousandths, or power alone in milliwatts."""
    settle_s: float = 0.5
    interval_s: float = 0.1

    def open(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def read_watts(self) -> float | None:
        """Power now; None where a file cannot be read."""
        total = 0.0
        for files in self.rails:
            watts = 1.0
            for file in files:
                value = read_number(file)
                if value is None:
                    return None
                watts *= value / 1000
            total += watts
        return total


@dataclass(slots=True)
class GpuSensor(Openable):
    """``nvidia-smi power.draw`` of one GPU: the board's power, a mean over the last second on Ampere and later."""

    name: str
    index: str
    """What ``nvidia-smi -i`` takes."""
    settle_s: float = 1.5
    interval_s: float = 0.0
    """The program itself paces the readings."""
    _process: subprocess.Popen[str] | None = field(default=None, repr=False)

    def open(self) -> None:
        """Start the program, which gives a line every 100 ms."""
        program = shutil.which("nvidia-smi")
        if program is None:
            return
        command = [program, "-i", self.index, "--query-gpu=power.draw", "--format=csv,noheader,nounits", "-lms", "100"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def close(self) -> None:
        """End the program."""
        if self._process is not None:
            self._process.terminate()
            self._process.communicate()
            self._process = None

    def read_watts(self) -> float | None:
        """The next reading, waited for; None where there is none."""
        if self._process is None or self._process.stdout is None:
            return None
        try:
            return float(self._process.stdout.readline())
        except ValueError:
            return None


@dataclass(slots=True)
class PackageCounter(Openable):
    """RAPL of x86 processors: microjoules that count up, and begin anew at a limit."""

    name: str
    packages: tuple[Path, ...]
    """Folders of ``/sys/class/powercap``, one a processor package."""
    settle_s: float = 0.1

    def open(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def read_joules(self) -> tuple[float, ...] | None:
        """What each package's counter shows; None where one cannot be read."""
        values = [read_number(package / "energy_uj") for package in self.packages]
        joules = tuple(value / 1e6 for value in values if value is not None)
        return joules if len(joules) == len(values) else None

    def joules_between(self, before: Sequence[float], after: Sequence[float]) -> float:
        """Joules of all packages between two readings, at most one turn of a counter apart."""
        total = 0.0
        for package, start, end in zip(self.packages, before, after, strict=True):
            turn = (read_number(package / "max_energy_range_uj") or 0.0) / 1e6
            total += end - start if end >= start else end - start + turn
        return total


PowerSensor = RailSensor | GpuSensor
Sensor = PowerSensor | PackageCounter


def find_sensors(root: Path = Path("/")) -> list[Sensor]:
    """Every sensor that answers now: a Jetson's rails, each NVIDIA GPU, the processor packages.

    Args:
        root: The folder that holds ``sys``; another than ``/`` in tests.
    """
    return [sensor for sensor in (*_rails(root), *_gpus(), *_packages(root)) if sensor is not None]


def choose_sensor(sensors: Sequence[Sensor], device: str) -> Sensor | None:
    """The sensor that sees what a device takes: a Jetson's for all of it, a GPU's own, the processor's for ``cpu``."""
    for sensor in sensors:
        if (
            isinstance(sensor, RailSensor)
            or (isinstance(sensor, GpuSensor) and device.startswith("cuda") and sensor.index == smi_index(device))
            or (isinstance(sensor, PackageCounter) and device == "cpu")
        ):
            return sensor
    return None


def _rails(root: Path) -> list[Sensor]:
    """The rail of the whole module; where there is none (AGX), the sum of all that have a name.

    Newer kernels (JetPack 5 and later): ``in*_label``, ``in*_input`` in mV, ``curr*_input`` in mA under hwmon, by the
    kernel's documentation of ina3221. Older ones: ``rail_name_*`` and ``in_power*_input`` in mW under iio.
    """
    rails: dict[str, tuple[Path, ...]] = {}
    for chip in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if (read_text(chip / "name") or "").startswith("ina3221"):
            for label in sorted(chip.glob("in[1-3]_label")):
                number = label.name[2]
                rails[read_text(label) or ""] = (chip / f"in{number}_input", chip / f"curr{number}_input")
    for label in sorted((root / "sys/bus/i2c/drivers/ina3221x").glob("*/iio:device*/rail_name_*")):
        number = label.name.rpartition("_")[2]
        rails[read_text(label) or ""] = (label.with_name(f"in_power{number}_input"),)
    named = {name: files for name, files in rails.items() if name not in ("", "NC")}
    chosen = [name for name in _TOTAL_RAILS if name in named][:1] or list(named)
    sensor = RailSensor(f"ina3221 {' + '.join(chosen)}", tuple(named[name] for name in chosen))
    return [sensor] if chosen and sensor.read_watts() is not None else []


def _gpus() -> list[Sensor]:
    sensors: list[Sensor] = []
    for index, power in query(("index", "power.draw")):
        try:
            float(power or "")
        except ValueError:
            continue
        sensors.append(GpuSensor(f"nvidia-smi power.draw of GPU {index}", index or "0"))
    return sensors


def _packages(root: Path) -> list[Sensor]:
    """Whole packages alone: their cores and memory lie within or beside, and ``psys`` holds them all."""
    zones = {}
    for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
        name = read_text(zone / "name") or ""
        if name.startswith("package") and zone.name.count(":") == 1:
            zones[name] = zone
    counter = PackageCounter(f"rapl {' + '.join(zones)}", tuple(zones.values()))
    return [counter] if zones and counter.read_joules() is not None else []
