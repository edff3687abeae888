"""Chaos: several executors on one Postgres, and everything that can happen to either, at random. `just chaos`."""
