"""Executors in processes of their own, to be killed and stopped, and the witness outside them who counts their calls."""
