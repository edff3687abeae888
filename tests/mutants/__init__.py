"""Mutants: Operon with one promise taken out, each with the tests that have to notice. `just mutants`."""
