"""A real Chromium without a window, for what people see; `make chromium` fetches it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["missing", "see"]

_FOLDER = Path(__file__).parents[2] / ".cache" / "chromium"


def missing() -> str:
    """Tell what it lacks to be started; empty where nothing."""
    if not shutil.which("node"):
        return "Chromium is driven by Node.js, which is not installed"
    if not (_FOLDER / ".fetched").exists():
        return "Chromium is not there; fetch it with: make chromium"
    return ""


def see(html: str, screenshot: Path) -> dict[str, Any]:
    """Show a page and take a picture of it.

    Returns
    -------
    dict
        What is to be seen: ``header``, ``rows`` and ``bold`` (first cells) of the table of exports, the rows of those
        of last ``night``, of the ``nights`` and of ``uploads``, ``text``, ``links``; what the page ``asked`` for on the
        network, and what its scripts ``said`` in dialogues. ``focused`` is what each press of the tabulator reaches,
        and whether that shows; ``narrow`` and ``paper`` are how wide the page is in a window of 900 pixels and on A4;
        ``faults`` is what axe-core finds, or cannot tell.
    """
    temporary = _FOLDER / "tmp"  # Chromium is unpacked here once
    temporary.mkdir(exist_ok=True)
    # It brings a font of its own, which it would look for in Lambda's /tmp only.
    fonts = f"<fontconfig><dir>{temporary}/fonts</dir><cachedir>{temporary}/fonts-cache</cachedir></fontconfig>"
    (temporary / "fonts.conf").write_text(fonts)
    ran = subprocess.run(
        [str(shutil.which("node")), "page.mjs", str(screenshot)],
        input=html,
        cwd=_FOLDER,
        # As in Lambda, it then brings the libraries that it needs.
        env={
            "PATH": os.environ["PATH"],
            "TMPDIR": str(temporary),
            "FONTCONFIG_PATH": str(temporary),
            "AWS_EXECUTION_ENV": "AWS_Lambda_nodejs22.x",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    seen: dict[str, Any] = json.loads(ran.stdout)
    return seen
