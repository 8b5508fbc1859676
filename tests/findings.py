"""What linters find in the built templates and the workflows, compared with what docs/findings.md explains.

``make findings`` runs it; no test does, for it fetches checkov and zizmor and takes half a minute.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from local.stack import PROJECT

CHECKOV, ZIZMOR = "checkov==3.3.30", "zizmor==1.32.0"
_OPTIONS = ["--framework", "cloudformation", "--skip-download", "--compact", "--quiet", "--output", "json"]
_EXPLAINED = re.compile(r"^\| (CKV\w+): [^|]+\| [^|]+\| (\d+) \|", re.MULTILINE)


def explained() -> Counter[str]:
    """Return how many findings of each of checkov's checks docs/findings.md explains."""
    page = (PROJECT / "docs" / "findings.md").read_text()
    return Counter({check: int(number) for check, number in _EXPLAINED.findall(page)})


def found() -> Counter[str]:
    """Return how many findings of each of its checks checkov has in what SAM built, and in uploader.yaml."""
    built = PROJECT / ".aws-sam" / "build"
    with tempfile.TemporaryDirectory() as folder:
        for name in ("template", "Watching/template", "People/template"):
            shutil.copy(built / f"{name}.yaml", Path(folder) / f"{name.replace('/', '-')}.yaml")
        shutil.copy(PROJECT / "uploader.yaml", folder)
        answer = subprocess.run(
            [os.environ["UV"], "tool", "run", "--quiet", CHECKOV, *_OPTIONS, "--directory", folder],
            capture_output=True,
            text=True,
            check=False,
        )
    said = json.loads(answer.stdout)
    if said["summary"]["parsing_errors"]:
        raise SystemExit("checkov could not read a template")
    return Counter(check["check_id"] for check in said["results"]["failed_checks"])


def main() -> int:
    """Say what is found and not explained, or explained and not found; return 1 where there is any."""
    there, told = found(), explained()
    for check in sorted(there.keys() | told.keys()):
        if there[check] != told[check]:
            sys.stderr.write(f"{check}: checkov finds {there[check]}, docs/findings.md explains {told[check]}\n")
    workflows = subprocess.run(
        [os.environ["UV"], "tool", "run", "--quiet", ZIZMOR, "--offline", "--quiet", ".github/workflows"],
        cwd=PROJECT,
        check=False,
    )
    return int(there != told or workflows.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
