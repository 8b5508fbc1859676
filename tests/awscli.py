"""Stands in for the AWS CLI where the runbook's commands are tried: its words are turned into a call as AWS's own does.

Any operation of any service is there, as botocore knows it, and of the CLI's own options those below. What moto's
server lacks is done here: a dead-letter queue's messages are moved back.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import boto3
import jmespath
from botocore import xform_name

__all__ = ["main", "parse"]

_OWN = {"query", "output"}


def parse(arguments: list[str]) -> tuple[str, str, dict[str, Any], dict[str, str]]:
    """Return the service, the name of the method, its parameters, and the CLI's own options.

    Raises
    ------
    KeyError
        There is no such operation, or no such option of it.
    """
    service, operation, *words = arguments
    client = boto3.client(service, region_name="eu-west-2")  # type: ignore[call-overload]
    method = operation.replace("-", "_")
    model = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[method])
    members = {xform_name(name).replace("_", "-"): (name, shape) for name, shape in model.input_shape.members.items()}
    parameters: dict[str, Any] = {}
    own: dict[str, str] = {}
    while words:
        option = words.pop(0).removeprefix("--")
        values = []
        while words and not words[0].startswith("--"):
            values.append(words.pop(0))
        if option in _OWN:
            [own[option]] = values
            continue
        name, shape = members[option.removeprefix("no-")]
        match shape.type_name:
            case "boolean":
                parameters[name] = not option.startswith("no-")
            case "list":
                parameters[name] = values
            case "integer":
                parameters[name] = int(*values)
            case _:
                [parameters[name]] = values
    assert set(model.input_shape.required_members) <= parameters.keys(), operation
    return service, method, parameters, own


def main(arguments: list[str]) -> None:
    """Do what the command says, and print the answer."""
    service, method, parameters, own = parse(arguments)
    client = boto3.client(service)  # type: ignore[call-overload]
    call = _move_messages if method == "start_message_move_task" else getattr(client, method)
    answer = call(**parameters)
    answer.pop("ResponseMetadata", None)
    found = jmespath.search(own["query"], answer) if "query" in own else answer
    text = own.get("output") == "text"
    sys.stdout.write((str(found) if text else json.dumps(found, indent=4, default=str)) + "\n")


def _move_messages(SourceArn: str) -> dict[str, Any]:  # noqa: N803 - boto3's name
    """Move a dead-letter queue's messages to the queue that they come from."""
    sqs = boto3.client("sqs")
    dead = sqs.get_queue_url(QueueName=SourceArn.rpartition(":")[2])["QueueUrl"]
    [source] = sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"]
    moved = 0
    while messages := sqs.receive_message(QueueUrl=dead, MessageSystemAttributeNames=["All"]).get("Messages", []):
        for message in messages:
            sqs.send_message(
                QueueUrl=source,
                MessageBody=message["Body"],
                MessageGroupId=message["Attributes"]["MessageGroupId"],
                MessageDeduplicationId=f"moved-{message['MessageId']}",
            )
            sqs.delete_message(QueueUrl=dead, ReceiptHandle=message["ReceiptHandle"])
            moved += 1
    return {"TaskHandle": f"{moved} messages moved"}


if __name__ == "__main__":
    main(sys.argv[1:])
