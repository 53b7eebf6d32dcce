"""Errors that say what was wrong and what to do next."""


class HintedError(ValueError):
    """Base of the errors that carry a hint.

    Args:
        message: One line that says what was wrong and what was received.
        hint: The next step for the user, or "".
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} {hint}".strip())
        self.message = message
        self.hint = hint


class BadInputError(HintedError):
    """A model, file, target, tile size or other input cannot be used."""
