"""Promises about the secret and the flag, on a Secrets Manager and a Parameter Store that answer from memory."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from vaccinations.aws.parameters import SECRET_FIELDS, MeshSecrets, SecretIncomplete, jobs_enabled

WHOLE = {name: f"the {name}" for name in SECRET_FIELDS}


class Secrets:
    """A Secrets Manager with one secret."""

    def __init__(self, text: str | None) -> None:
        self.text = text
        self.asked = 0

    def get_secret_value(self, **_: Any) -> dict[str, str]:
        self.asked += 1
        if self.text is None:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "GetSecretValue")
        return {"SecretString": self.text}


class Parameters:
    """A Parameter Store with one parameter."""

    def __init__(self, value: str | None) -> None:
        self.value = value

    def get_parameter(self, **_: Any) -> dict[str, Any]:
        if self.value is None:
            raise ClientError({"Error": {"Code": "ParameterNotFound"}}, "GetParameter")
        return {"Parameter": {"Value": self.value}}


def secrets(text: str | None) -> Any:
    return MeshSecrets(Secrets(text), "mesh")  # type: ignore[arg-type]


def test_a_secret_is_read_with_all_its_fields_and_shows_none_of_them() -> None:
    secret = secrets(json.dumps(WHOLE)).read()
    assert (secret.mailbox, secret.ca_bundle) == ("the mailbox", "the ca_bundle")
    assert [name for name in SECRET_FIELDS if WHOLE[name] in f"{secret!r} {secret}"] == []


def test_a_warm_function_does_not_ask_for_the_secret_each_time() -> None:
    manager = Secrets(json.dumps(WHOLE))
    reading = MeshSecrets(manager, "mesh")  # type: ignore[arg-type]
    assert reading.read() == reading.read()
    assert manager.asked == 1


@pytest.mark.parametrize("text", ["hunter2", '{"password": "hunter2"', '["hunter2"]', '"hunter2"'])
def test_a_secret_that_is_no_json_object_says_how_to_fill_it_and_not_what_is_in_it(text: str) -> None:
    with pytest.raises(SecretIncomplete, match="mesh secret put") as caught:
        secrets(text).read()
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_the_secret_of_a_new_stack_which_has_no_version_yet_lacks_everything() -> None:
    with pytest.raises(SecretIncomplete, match=f"lacks {', '.join(SECRET_FIELDS)}; fill it with: mesh secret put"):
        secrets(None).read()


def test_fields_that_are_missing_or_empty_are_named() -> None:
    with pytest.raises(SecretIncomplete, match="lacks shared_key, certificate;"):
        secrets(json.dumps({**WHOLE, "shared_key": "", "certificate": None})).read()


def test_a_flag_that_nobody_has_switched_yet_is_off_and_can_be_told_from_one_that_was_switched_off() -> None:
    assert jobs_enabled(Parameters(None), "/mesh_jobs") is None  # type: ignore[arg-type]
    assert jobs_enabled(Parameters("disabled"), "/mesh_jobs") is False  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "on"), [("enabled", True), (" Enabled\n", True), ("disabled", False), ("", False), ("on", False)]
)
def test_the_jobs_run_only_where_the_flag_says_enabled(value: str, *, on: bool) -> None:
    assert jobs_enabled(Parameters(value), "/mesh_jobs") is on  # type: ignore[arg-type]


def test_switching_the_flag_acts_at_once() -> None:
    store = Parameters("enabled")
    assert jobs_enabled(store, "/mesh_jobs")  # type: ignore[arg-type]
    store.value = "disabled"
    assert not jobs_enabled(store, "/mesh_jobs")  # type: ignore[arg-type]
