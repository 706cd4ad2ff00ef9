"""Folders as the kernels of a Jetson and of a desktop lay them out, and stand-ins for NVIDIA's programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

ORIN_NANO = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n# second\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0",
    "proc/loadavg": "0.40 0.30 0.20 1/400 1234\n",
    "proc/cpuinfo": "processor\t: 0\nBogoMIPS\t: 62.50\nFeatures\t: fp asimd\n",
    "sys/class/devfreq/17000000.gpu/device/of_node/name": "gpu\0",
    "sys/class/devfreq/17000000.gpu/cur_freq": "1020000000\n",
    "sys/class/devfreq/17000000.gpu/min_freq": "1020000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
    "sys/class/devfreq/15340000.vic/cur_freq": "115200000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "51250\n",
    "sys/class/thermal/thermal_zone1/type": "gpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "49500\n",
    "sys/class/thermal/thermal_zone2/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone2/temp": "-256000\n",
    "sys/class/hwmon/hwmon0/name": "pwmfan\n",
    "sys/class/hwmon/hwmon1/name": "ina3221\n",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN\n",
    "sys/class/hwmon/hwmon1/in1_input": "5000\n",
    "sys/class/hwmon/hwmon1/curr1_input": "1200\n",
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV\n",
    "sys/class/hwmon/hwmon1/in2_input": "5000\n",
    "sys/class/hwmon/hwmon1/curr2_input": "300\n",
    "sys/class/hwmon/hwmon1/in3_label": "VDD_SOC\n",
    "sys/class/hwmon/hwmon1/in3_input": "5000\n",
    "sys/class/hwmon/hwmon1/curr3_input": "400\n",
    "sys/class/hwmon/hwmon1/in7_label": "sum of shunt voltages\n",
    **{
        f"sys/devices/system/cpu/cpu{core}/cpufreq/{name}": text
        for core in range(2)
        for name, text in {
            "scaling_cur_freq": "1510400\n",
            "scaling_min_freq": "729600\n",
            "scaling_max_freq": "1510400\n",
            "scaling_governor": "schedutil\n",
        }.items()
    },
}
"""A Jetson Orin Nano with JetPack 6, its GPU's clock pinned."""

AGX_ORIN_RAILS = {
    f"sys/class/hwmon/hwmon{chip}/{name}": text
    for chip, rails in ((3, ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")), (4, ("NC", "VDDQ_VDD2_1V8AO", "NC")))
    for name, text in {
        "name": "ina3221\n",
        **{f"in{number}_label": f"{rail}\n" for number, rail in enumerate(rails, 1)},
        **{f"in{number}_input": "5000\n" for number in range(1, 4)},
        **{f"curr{number}_input": "1000\n" for number in range(1, 4)},
    }.items()
}
"""A Jetson AGX Orin: no rail of the whole module, and two channels that are not connected."""

NANO_RAILS = {
    f"sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/{name}": text
    for name, text in {
        "rail_name_0": "POM_5V_IN\n",
        "in_power0_input": "2345\n",
        "rail_name_1": "POM_5V_GPU\n",
        "in_power1_input": "100\n",
        "rail_name_2": "POM_5V_CPU\n",
        "in_power2_input": "500\n",
    }.items()
}
"""A Jetson Nano with JetPack 4."""

DESKTOP = {
    "proc/loadavg": "0.10 0.20 0.30 1/900 4321\n",
    "proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu sse avx2\n",
    "proc/self/cgroup": "0::/user.slice/session.scope\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
    "sys/fs/cgroup/user.slice/cpu.max": "max 100000\n",
    "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
    "sys/class/thermal/thermal_zone0/temp": "40000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "4000000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_min_freq": "800000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "5000000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
    "sys/class/powercap/intel-rapl:0/name": "package-0\n",
    "sys/class/powercap/intel-rapl:0/energy_uj": "1000000\n",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "262143328850\n",
    "sys/class/powercap/intel-rapl:0:0/name": "core\n",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "900000\n",
    "sys/class/powercap/intel-rapl:1/name": "psys\n",
    "sys/class/powercap/intel-rapl:1/energy_uj": "5000000\n",
}
"""A desktop with an x86 processor."""


def write_tree(root: Path, files: Mapping[str, str]) -> Path:
    """Write files below a folder, which is returned; what is there already is written anew."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def write_program(folder: Path, name: str, script: str) -> None:
    """Write a program for ``/bin/sh``."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


def write_nvidia_smi(folder: Path, rows: list[dict[str, str]]) -> None:
    """Write an ``nvidia-smi`` that knows the fields of ``rows``, one a GPU, and refuses others as NVIDIA's does.

    With ``-lms`` it gives the first row's values again and again.
    """
    answers = "\n".join(
        f"{number}.{field}) value='{value}';;" for number, row in enumerate(rows) for field, value in row.items()
    )
    script = f"""
gpus='{" ".join(str(number) for number in range(len(rows)))}'
while [ $# -gt 0 ]; do
  case "$1" in
    --query-gpu=*) fields=$(echo "${{1#*=}}" | tr ',' ' ');;
    -i) shift; gpus="$1";;
    -lms) shift; again=1;;
  esac
  shift
done
while :; do
  for gpu in $gpus; do
    line=''
    for field in $fields; do
      case "$gpu.$field" in
        {answers}
        *) echo "Field \\"$field\\" is not a valid field to query."; exit 2;;
      esac
      line="$line, $value"
    done
    echo "${{line#, }}"
  done
  [ -n "$again" ] || exit 0
  sleep 0.01
done
"""
    write_program(folder, "nvidia-smi", script)
