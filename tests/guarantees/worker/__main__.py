"""One life by hand, told by the environment."""

from tests.guarantees.worker.life import live

live({})
