"""Executors in processes of their own, to be killed and stopped, and the witness who counts their calls."""
