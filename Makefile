# Two commands set everything up on a fresh machine with Python 3.11: `make demo` and `make test`.

PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEMO   := demo-output

.PHONY: demo test lint format docs kernel-table clean help

help:
	@echo "make demo          export the trained sample, quantize it, verify it, run it on a photograph, ask it, benchmark it (CPU only)"
	@echo "make test          run the tests"
	@echo "make lint          ruff and mypy"
	@echo "make format        apply ruff's formatting and safe fixes"
	@echo "make docs          regenerate docs/cli.md from the commands' help"
	@echo "make kernel-table  compile every kernel for every chip and regenerate docs/kernels.md (minutes, no GPU)"
	@echo "make clean         remove the environment and everything generated"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@# Types of TensorRT, for mypy alone: where they could be imported they would pass for TensorRT itself, which they require.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target $(VENV)/stubs tensorrt-stubs==10.13.0.35.1
	@# As published they do not parse: `in` is a keyword, a default precedes a parameter without one, `bool` hides the type.
	sed -i -e 's/, in: list/, inputs: list/' -e 's/channel_axis: int) -> IScaleLayer/channel_axis: int = ...) -> IScaleLayer/' \
		-e 's/^bool: DataType/bool_: DataType/' $(VENV)/stubs/tensorrt_bindings/tensorrt.pyi
	@touch $@

demo: $(READY)
	rm -rf $(DEMO) && mkdir $(DEMO)
	$(BIN)/pargo-export sample --trained -o $(DEMO)/sample
	$(BIN)/python examples/train_sample/make_data.py $(DEMO)/data --images-per-task 12 --calibration 64
	$(BIN)/pargo-export onnx $(DEMO)/sample/model.safetensors -o $(DEMO)/bundle
	$(BIN)/pargo-export onnx $(DEMO)/sample/model.safetensors -o $(DEMO)/bundle --precision fp16 --target cuda
	$(BIN)/pargo-export calibrate $(DEMO)/bundle --data $(DEMO)/data/calibration/captions.jsonl
	$(BIN)/pargo-export quantize $(DEMO)/bundle --int8
	$(BIN)/pargo-export quantize $(DEMO)/bundle --int8 --target cuda
	$(BIN)/pargo-export verify $(DEMO)/bundle --checkpoint $(DEMO)/sample/model.safetensors
	$(BIN)/pargo-export run $(DEMO)/bundle pargo_export/assets/coffee.jpg --variant fp32 -o $(DEMO)/tokens.safetensors
	$(BIN)/pargo-export run $(DEMO)/bundle pargo_export/assets/coffee.jpg --variant int8-cpu -o $(DEMO)/tokens-int8.safetensors
	$(BIN)/pargo-export eval mme $(DEMO)/bundle --llm $(DEMO)/sample/llm --data $(DEMO)/data/mme --variants fp32,int8-cpu \
		--results $(DEMO)/answers -o $(DEMO)/accuracy.json --html $(DEMO)/accuracy.html
	$(BIN)/pargo-export bench $(DEMO)/bundle --variant fp32,int8-cpu --batch 1 --duration 1s --input pargo_export/assets/coffee.jpg \
		-o $(DEMO)/benchmark.json --html $(DEMO)/report.html
	@# TensorRT for RTX builds without a GPU; where it is not installed (not x86-64), there is no engine to show.
	if $(BIN)/python -c "import tensorrt_rtx" 2>/dev/null; then \
		$(BIN)/pargo-export trt $(DEMO)/bundle --int8 --target rtx:sm89; \
	fi
	$(BIN)/pargo-export inspect $(DEMO)/bundle

test: $(READY)
	$(BIN)/python -m pytest -m "not slow and not gpu" --numprocesses auto --dist loadfile --max-worker-restart 0

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/python -m pargo_export.cli.reference > docs/cli.md

# Apart from `docs`, because it takes minutes. Exit status 1, and the old table stays, if a kernel does not fit a chip.
kernel-table: $(READY)
	$(BIN)/python -m pargo_kernels.aot --markdown > docs/kernels.md.new || { rm docs/kernels.md.new; exit 1; }
	mv docs/kernels.md.new docs/kernels.md

clean:
	rm -rf $(VENV) $(DEMO) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
