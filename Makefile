# The same commands for people, hooks and .ci/run.
.PHONY: check lint types floors test slow golden fix

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

fix:
	ruff check --fix .
	ruff format .
