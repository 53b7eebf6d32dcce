"""All-memristive networks: level-tuned neurons beside the classic winner-takes-all."""

from experiments.level_tuned.tables import table

__all__ = ["table"]
