# The same commands for people, hooks and .ci/run.
.PHONY: check lint types floors test slow golden bench fix

check: lint types floors test

lint:
	ruff check .
	ruff format --check .

types:
	pyright

floors:
	lint-imports

test:
	pytest

slow:
	pytest -m slow

golden:
	python experiments/rewrite_golden.py

bench:
	python benchmarks/run_all.py $(BENCH)

fix:
	ruff check --fix .
	ruff format .
