# Two commands set everything up on a machine that has Python (3.10 or later) and make:
#   make demo    environment, install, and the whole way on procedural data
#   make test    environment, install, style, types and tests
PYTHON ?= python3
VENV ?= .venv
BIN := $(abspath $(VENV))/bin
STAMP := $(abspath $(VENV))/installed.stamp
DEMO ?= demo

.PHONY: demo test check bindings peers integrations wheel clean

demo: $(STAMP)
	$(BIN)/hamr-edge demo -o $(DEMO)

test: $(STAMP) check bindings
	$(BIN)/python -m pytest

# mypy sees the folders' package names only in an installed copy.
check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --target build/types .
	cd build/types && $(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p hamr_edge

# Python's view of three TensorRT releases, of PyCUDA and of cuda-bindings, which tests hold our calls and our doubles
# against; what cannot be had is skipped there.
bindings: $(STAMP)
	$(BIN)/python -m tests.enterprise_bindings
	$(BIN)/python -m tests.pycuda_source

# An environment for each program that bench can measure beside ours; see benchmarks/peers/README.md for the GPU question.
peers:
	$(PYTHON) -m venv peers/plain
	peers/plain/bin/pip install --quiet numpy==2.4.6 opencv-python==4.14.0.94 onnxruntime==1.32.0
	$(PYTHON) -m venv peers/boxmot
	peers/boxmot/bin/pip install --quiet torch==2.13.0 torchvision==0.28.0 boxmot==25.0.0 onnxruntime==1.24.3 \
	  opencv-python==4.14.0.94 numpy==2.4.6
	$(PYTHON) -m venv peers/torchreid
	peers/torchreid/bin/pip install --quiet torch==2.13.0 torchvision==0.28.0 torchreid==0.2.5 opencv-python==4.14.0.94 \
	  numpy==2.4.6 pillow==13.0.0 gdown tensorboard scipy h5py matplotlib

# The tools of others that we fit into, each in an environment of its own, with the tests that need it. Torchvision's wheel
# of the same release wants CUDA: an older one serves what only imports it.
PIP := bin/pip install --quiet
INTEGRATION_TESTS := -m pytest -q -rs -p no:cacheprovider
integrations:
	for name in triton boxmot ultralytics roboflow transformers; do $(PYTHON) -m venv integrations/$$name && \
	  integrations/$$name/$(PIP) --upgrade pip setuptools wheel && integrations/$$name/$(PIP) numpy "opencv-python<5" \
	  click rich onnx onnxruntime pytest pytest-timeout hypothesis && \
	  integrations/$$name/$(PIP) --no-deps --no-build-isolation -e . || exit 1; done
	integrations/triton/$(PIP) "tritonclient[grpc]==2.73.0"
	integrations/triton/bin/python $(INTEGRATION_TESTS) tests/test_triton_config.py tests/test_triton_repository.py
	integrations/boxmot/$(PIP) torch==2.13.0 torchvision==0.28.0 boxmot==25.0.0
	integrations/boxmot/bin/python $(INTEGRATION_TESTS) tests/test_tracker_packages.py
	integrations/ultralytics/$(PIP) torch==2.13.0 lap==0.5.13 polars==2.1.0 psutil py-cpuinfo pyyaml pillow matplotlib \
	  requests scipy
	integrations/ultralytics/$(PIP) --no-deps torchvision==0.15.2 ultralytics==8.4.190 ultralytics-thop==2.2.3
	integrations/ultralytics/bin/python $(INTEGRATION_TESTS) tests/test_tracker_packages.py tests/test_detector_packages.py
	integrations/roboflow/$(PIP) torch==2.13.0 supervision==0.26.0rc7 trackers==2.0.1
	integrations/roboflow/$(PIP) --no-deps torchvision==0.15.2 timm==1.0.15 firerequests==0.1.4 validators rich_argparse \
	  huggingface_hub safetensors pyyaml pillow
	integrations/roboflow/bin/python $(INTEGRATION_TESTS) tests/test_tracker_packages.py
	integrations/transformers/$(PIP) torch==2.13.0 transformers==5.23.0 scipy pillow
	integrations/transformers/bin/python $(INTEGRATION_TESTS) tests/test_detector_packages.py

wheel: $(STAMP)
	rm -rf build dist
	$(BIN)/python -m build --no-isolation --wheel > /dev/null
	ls dist

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip setuptools -c constraints.txt
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) build dist .bindings *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
