"""The ``mesh`` command as a program: what can be interrupted before anything is loaded, too."""

from __future__ import annotations

import sys

__all__ = ["run"]


def run() -> None:
    """Load the command and run it."""
    try:
        from mesh_cli.main import main
    except KeyboardInterrupt:
        sys.exit(130)
    main()


if __name__ == "__main__":
    run()
