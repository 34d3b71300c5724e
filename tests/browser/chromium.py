"""The browser: the distribution's, told to speak to nobody but the page's own daemon."""

from __future__ import annotations

CHROMIUM = "/usr/bin/chromium"
OPTIONS = (
    "--headless",
    "--no-sandbox",  # Chromium refuses to run as root with it; the pages are our own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # As without the internet: no name leads anywhere.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
