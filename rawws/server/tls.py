"""TLS: the certificate of a server that runs, to a newer one for the connections that begin from now on."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from rawws.errors import LocalProtocolError

if TYPE_CHECKING:
    import logging
    import ssl
    from collections.abc import Callable, Sequence

__all__ = ["TlsReloader", "is_prohibited"]


@final
class TlsReloader:
    """The contexts of a server: the one that it listens with, and the one that new connections get."""

    __slots__ = ("_alpn", "_current", "_listening", "_make")

    def __init__(
        self, given: ssl.SSLContext | Callable[[], ssl.SSLContext] | None, alpn: Sequence[str] | None = None
    ) -> None:
        # The protocols that are offered in the TLS handshake, None to leave that to the contexts.
        self._alpn = alpn
        makes = given is not None and not hasattr(given, "wrap_bio")
        self._make: Callable[[], ssl.SSLContext] | None = given if makes else None  # type: ignore[assignment]
        self._listening: ssl.SSLContext | None = self._make() if self._make is not None else given  # type: ignore[assignment]
        self._current: ssl.SSLContext | None = None
        self._offer(self._listening)

    def _offer(self, context: ssl.SSLContext | None) -> None:
        """Have a context offer the protocols."""
        if self._alpn is not None and context is not None:
            import ssl  # noqa: PLC0415 - few servers have TLS, most leave it to a proxy

            context.set_alpn_protocols(list(self._alpn))
            # RFC 9113 9.2.1: "A deployment of HTTP/2 over TLS 1.2 MUST disable compression." And "renegotiation".
            context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION

    @property
    def context(self) -> ssl.SSLContext | None:
        """What the server listens with; None without TLS."""
        return self._listening

    @property
    def reloads(self) -> bool:
        """Whether there is a function that makes a context."""
        return self._make is not None

    def reload(self, context: ssl.SSLContext | None) -> None:
        """Use another context from now on, by default one that the function makes. Raises LocalProtocolError."""
        first = self._listening
        if first is None or (context is None and self._make is None):
            raise LocalProtocolError("there is nothing to load, needed is TLS, and a function as ssl or a context")
        if self._current is None and first.sni_callback is not None:
            raise LocalProtocolError("the context of the server has an sni_callback, which chooses certificates itself")
        self._current = self._make() if context is None and self._make is not None else context
        self._offer(self._current)
        first.sni_callback = self._choose

    def on_hangup(self, logger: logging.Logger) -> None:
        """Make a new context; where that fails, log why and go on with the old one."""
        try:
            self.reload(None)
        except Exception:
            logger.exception("the new certificate cannot be used, the old one stays")
        else:
            logger.info("the certificate was loaded again")

    def _choose(self, ssl_object: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:  # noqa: ARG002
        # OpenSSL asks in each handshake, with and without a name in it.
        if self._current is not None:
            ssl_object.context = self._current


def is_prohibited(tls: ssl.SSLObject) -> bool:
    """Tell whether HTTP/2 is not to be spoken with what a TLS handshake agreed on (RFC 9113 section 9.2)."""
    version, cipher = tls.version(), tls.cipher()
    if version == "TLSv1.3":
        return False
    # 9.2: "Implementations of HTTP/2 MUST use TLS version 1.2 [TLS12] or higher for HTTP/2 over TLS." 9.2.2 and
    # appendix A: with TLS 1.2, all cipher suites are prohibited but those with an ephemeral key exchange and an AEAD.
    name = "" if cipher is None else cipher[0]
    is_aead = "GCM" in name or "CHACHA20" in name or "CCM" in name
    return version != "TLSv1.2" or not is_aead or not name.startswith(("ECDHE-", "DHE-"))
