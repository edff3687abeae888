"""`python -m operon.cli` is `operon`."""

from operon.cli import main

main(prog_name="operon")
