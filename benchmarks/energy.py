"""Energy of an embedding, from the machine's own sensors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from hamr_edge.benchmarks.power_sensors import PackageCounter, PowerSensor, Sensor


@dataclass(frozen=True, slots=True)
class Energy:
    """Power while one model runs alone, again and again."""

    sensor: str
    """What was read: ``ina3221 VDD_IN`` on a Jetson, ``nvidia-smi power.draw``, ``rapl package-0``."""
    batch: int
    watts: float
    """Mean while it runs."""
    idle_watts: float
    """Mean just before, with nothing running here."""
    millijoules_per_image: float
    """The whole draw, idle included: what a battery gives."""
    samples: int
    """Readings while it ran; 2 of a counter, before and after."""


_IDLE_S = 2.0
"""Watch the idle machine for this long, or for as long as the model where that is shorter."""


def measure_energy(
    run: Callable[[], object],
    batch: int,
    seconds: float,
    sensor: Sensor | None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Energy | None:
    """Watch a sensor while the machine idles, then while one model runs in a loop.

    Before each of the two, the sensor is given its ``settle_s``: it may tell a mean over the last second.

    Args:
        run: One inference; returns when its work is done.
        batch: Images of one inference.
        seconds: Run for this long.
        sensor: Of :func:`~hamr_edge.benchmarks.power_sensors.choose_sensor`.
        clock: Seconds, rising.
        sleep: Passes seconds.

    Returns:
        None without a sensor, or where it stopped answering.
    """
    if sensor is None:
        return None

    def loop(duration: float) -> int:
        count, start = 0, clock()
        while not count or clock() - start < duration:
            run()
            count += 1
        return count

    def rest(duration: float) -> int:
        sleep(duration)
        return 0

    with sensor:
        rest(sensor.settle_s)
        idle = _watch(sensor, lambda: rest(min(seconds, _IDLE_S)), clock)
        loop(sensor.settle_s)
        busy = _watch(sensor, lambda: loop(seconds), clock)
    if idle is None or busy is None:
        return None
    return Energy(
        sensor=sensor.name,
        batch=batch,
        watts=busy.watts,
        idle_watts=idle.watts,
        millijoules_per_image=1000 * busy.watts * busy.seconds / (busy.runs * batch),
        samples=busy.samples,
    )


@dataclass(frozen=True, slots=True)
class _Watched:
    watts: float
    seconds: float
    runs: int
    samples: int


def _watch(sensor: Sensor, work: Callable[[], int], clock: Callable[[], float]) -> _Watched | None:
    """Mean power while ``work`` runs, which gives its number of runs."""
    if isinstance(sensor, PackageCounter):
        before, start = sensor.read_joules(), clock()
        runs = work()
        seconds, after = clock() - start, sensor.read_joules()
        if before is None or after is None or seconds <= 0:
            return None
        return _Watched(sensor.joules_between(before, after) / seconds, seconds, runs, 2)
    readings: list[float] = []
    stop = threading.Event()
    sampler = threading.Thread(target=_sample, args=(sensor, readings, stop), daemon=True)
    start = clock()
    sampler.start()
    try:
        runs = work()
    finally:
        seconds = clock() - start
        stop.set()
        sampler.join()
    return _Watched(sum(readings) / len(readings), seconds, runs, len(readings)) if readings else None


def _sample(sensor: PowerSensor, readings: list[float], stop: threading.Event) -> None:
    """Read until told to stop, once at least; a sensor that stops answering ends it, and what it gave is dropped."""
    while True:
        watts = sensor.read_watts()
        if watts is None:
            readings.clear()
            return
        readings.append(watts)
        if stop.wait(sensor.interval_s):
            return
