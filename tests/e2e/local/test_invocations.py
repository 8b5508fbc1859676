"""Promises about Lambda's API on this machine: boto3 sees what it would see of AWS."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from local.session import session

if TYPE_CHECKING:
    from local.stack import LocalCloud


@pytest.fixture
def lambda_(toy: LocalCloud) -> Any:
    return session().client("lambda", endpoint_url=toy.environment_of_commands()["AWS_ENDPOINT_URL_LAMBDA"])


def test_a_function_is_invoked_by_the_name_in_the_stacks_outputs(toy: LocalCloud, lambda_: Any) -> None:
    answer = lambda_.invoke(
        FunctionName=toy.outputs["TrackFunctionName"], Payload=b'{"say": "good evening"}', LogType="Tail"
    )
    assert "FunctionError" not in answer
    assert json.loads(answer["Payload"].read())["memory"] == "512"
    assert "good evening" in base64.b64decode(answer["LogResult"]).decode()


def test_a_function_that_raises_is_told_with_the_request_id_of_its_log(toy: LocalCloud, lambda_: Any) -> None:
    answer = lambda_.invoke(FunctionName=toy.outputs["TrackFunctionName"], Payload=b'{"fail": "as it was told"}')
    request_id = answer["ResponseMetadata"]["RequestId"]
    failure = json.loads(answer["Payload"].read())
    assert answer["FunctionError"] == "Unhandled"
    assert (failure["errorType"], failure["errorMessage"]) == ("Disobedience", "as it was told")
    assert failure["requestId"] == request_id
    assert f"RequestId: {request_id}" in toy.logs()["TrackFunction"]


def test_a_function_that_is_not_there_is_not_found(lambda_: Any) -> None:
    with pytest.raises(ClientError) as caught:
        lambda_.invoke(FunctionName="local-NoFunction", Payload=b"{}")
    assert caught.value.response["Error"]["Code"] == "ResourceNotFoundException"


def test_a_function_starts_anew_with_the_variables_that_it_is_given(toy: LocalCloud, lambda_: Any) -> None:
    toy.emulator.configure("CollectFunction", MESH_BASE_URL="https://elsewhere")
    answer = lambda_.invoke(FunctionName=toy.outputs["CollectFunctionName"], Payload=b"{}")
    environment = json.loads(answer["Payload"].read())["environment"]
    assert environment["MESH_BASE_URL"] == "https://elsewhere"
    assert environment["BUCKET"] == toy.outputs["BucketName"]
