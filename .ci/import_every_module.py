"""Import, from an installed wheel, every module that the source tree has; the tree's root is the argument."""

import importlib
import sys
from pathlib import Path

FOLDERS = {
    "hamr_edge": "hamr_edge",
    "hamr_edge.export": "export",
    "hamr_edge.trainer": "trainer",
    "hamr_edge.calibration": "calibration",
    "hamr_edge.benchmarks": "benchmarks",
}

root = Path(sys.argv[1])
count = 0
for package, folder in FOLDERS.items():
    for file in sorted((root / folder).glob("*.py")):
        name = package if file.stem == "__init__" else f"{package}.{file.stem}"
        module = importlib.import_module(name)
        if root in Path(module.__file__ or "").parents:
            sys.exit(f"{name} came from the source tree, not from the wheel")
        count += 1
sys.stdout.write(f"{count} modules imported from the wheel\n")
