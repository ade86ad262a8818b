"""Access tokens of Google Cloud, which live an hour: fetched with the machine's default credentials, renewed in time.

Default credentials are a service account's file (`GOOGLE_APPLICATION_CREDENTIALS`), a login of `gcloud auth
application-default login`, or the machine's own account.
"""

from __future__ import annotations

import threading
from functools import partial

from understudy.errors import ConfigError, extra
from understudy.models.reply import Failure

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
WAIT_S = 20.0
"""Longest wait for the token server; a token is fetched about once an hour."""


class GoogleToken:
    """Gives a token that is valid now. Thread-safe; `last` is the one given last, so that errors can hide it."""

    def __init__(self, where: str) -> None:
        """Raises ResourceError EXTRA_MISSING without google-auth, ConfigError KEY_MISSING without credentials."""
        with extra("vertex"):
            import google.auth
            from google.auth.exceptions import GoogleAuthError
            from google.auth.transport.requests import Request

        try:
            self._credentials, _ = google.auth.default(scopes=[SCOPE])
        except (GoogleAuthError, OSError, ValueError) as e:
            fix = "set GOOGLE_APPLICATION_CREDENTIALS to a service account's file, log in with `gcloud auth "
            fix += "application-default login`, or write api_key: ${env:NAME}"
            what = f"no Google credentials can be used ({type(e).__name__})"
            raise ConfigError("KEY_MISSING", where, what, fix) from None
        self._request = partial(Request(), timeout=WAIT_S)
        self._lock = threading.Lock()
        self.last = ""

    def __repr__(self) -> str:
        return "GoogleToken(***)"

    def __call__(self) -> str:
        """Raises Failure KEY_REFUSED, or CONNECTION where another try may help."""
        from google.auth.exceptions import GoogleAuthError, TransportError

        with self._lock:
            if not self._credentials.valid:
                try:
                    self._credentials.refresh(self._request)
                except GoogleAuthError as e:
                    # Only the kind of error (`invalid_grant`): what follows may repeat the signed assertion.
                    kind = str(e.args[0] if e.args else "").split(":")[0][:60]
                    what = f"Google's token server gave no access token ({type(e).__name__}: {kind})"
                    if isinstance(e, TransportError) or e.retryable:
                        raise Failure("CONNECTION", what, retry=True, free=True) from None
                    raise Failure("KEY_REFUSED", what, fatal=True, free=True) from None
            self.last = str(self._credentials.token)
            return self.last
