"""The error for a mistake that the user can mend; programs show it without a traceback."""


class UserError(ValueError):
    """Something the user gave does not fit; the message says what, where, and what to do."""
