"""What importing the model and the formats promises: rules that run without the cloud, and no more than is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import vaccinations.model

MODULES = sorted(path.stem for path in Path(vaccinations.model.__file__).parent.glob("*.py"))


def loaded_by(module: str) -> set[str]:
    """Return the names of all top-level modules that are loaded once a module is."""
    code = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(done.stdout.split())


#: What the interpreter itself loads: hooks of an environment, and the facts that zoneinfo asks sysconfig for.
ALWAYS = loaded_by("zoneinfo")


@pytest.mark.parametrize("module", MODULES)
def test_importing_the_model_loads_the_standard_library_only_but_for_the_record(module: str) -> None:
    foreign = loaded_by(f"vaccinations.model.{module}") - set(sys.stdlib_module_names) - ALWAYS - {"vaccinations"}
    if module == "record":
        assert "pydantic" in foreign
        assert not foreign & {"orjson", "boto3", "botocore", "requests", "isal"}
    else:
        assert foreign == set()


@pytest.mark.parametrize("module", ["acknowledgements", "batches", "dps_columns", "dps_names", "dps_parts", "rejects"])
def test_what_export_and_collect_read_and_write_does_not_pay_for_validation(module: str) -> None:
    assert not loaded_by(f"vaccinations.formats.{module}") & {"pydantic", "boto3", "botocore", "requests"}
