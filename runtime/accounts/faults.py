"""What can be wrong with who comes in, or wants to."""

from __future__ import annotations

from runtime.errors import RuntimeFault


class AccountFault(RuntimeFault):
    """An account or a token cannot be made so."""

    code = "bad_account"


class WrongPassword(RuntimeFault):
    """No account goes by that name and password."""

    code = "wrong_password"


class TooManyTries(RuntimeFault):
    """Too many sign-ins have failed of late."""

    code = "too_many_tries"

    def __init__(self, seconds: int) -> None:
        super().__init__("Too many sign-ins have failed.")
        self.seconds = seconds
        self.hint = f"Try again in {seconds} s."
