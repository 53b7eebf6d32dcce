"""All-memristive networks: level-tuned neurons beside the classic winner-takes-all."""
