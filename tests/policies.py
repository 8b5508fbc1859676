"""Evaluates the templates' policies as IAM does: allowed where a statement allows it and none denies it.

Resources stand for themselves by their logical ids: ``Bucket/incoming/R1L/monday.csv``, ``Key``. Evaluated is what
the templates use, no more: no ``NotAction``, and of the conditions' operators those below. Anything else fails.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ACCOUNT = "123456789012"
_PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::Region": "eu-west-2",
    "AWS::StackName": "stack",
    "Stack": "stack",
}
_EQUAL = {"StringEquals", "ArnEquals", "Bool"}
_LIKE = {"StringLike", "ArnLike"}


@dataclass(frozen=True, slots=True)
class Request:
    """What somebody wants to do.

    Attributes
    ----------
    principal
        Who, for policies of resources: a service (``events.amazonaws.com``) or an ARN; empty for policies of roles.
    context
        What conditions ask about.
    """

    action: str
    resource: str
    principal: str = ""
    context: Mapping[str, str] = field(default_factory=dict)


def plain(value: Any, parameters: Mapping[str, str] | None = None) -> Any:
    """Resolve a template's value; resources become their logical ids, parameters too where no value is given."""
    given = _PSEUDO | dict(parameters or {})
    match value:
        case {"Ref": name}:
            return given.get(name, name)
        case {"Fn::GetAtt": [name, "Arn"]}:
            return name
        case {"Fn::Sub": str(text)}:
            text = re.sub(r"\$\{([\w:]+)(\.Arn)?\}", lambda found: given.get(found[1], found[1]), text)
            return re.sub(r"^arn:aws:s3:::", "", text)
        case {"Fn::If": [condition, yes, no]}:
            return plain(yes if given.get(condition) else no, parameters)
        case dict():
            found = {key: plain(one, parameters) for key, one in value.items()}
            return {key: one for key, one in found.items() if one != "AWS::NoValue"}
        case list():
            return [plain(one, parameters) for one in value]
    return value


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def allows(document: Any, request: Request, parameters: Mapping[str, str] | None = None) -> bool:
    """Tell whether a policy, or several as a list of their statements, allows a request."""
    statements = document["Statement"] if isinstance(document, dict) else document
    effects = {one["Effect"] for one in plain(statements, parameters) if _is_about(one, request)}
    return effects == {"Allow"}


def _is_about(statement: Any, request: Request) -> bool:
    unknown = set(statement) - {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
    assert not unknown, unknown
    return (
        _is_by(statement.get("Principal"), request.principal)
        and any(fnmatchcase(request.action, pattern) for pattern in as_list(statement["Action"]))
        # A policy of trust names no resource: it is the role's own.
        and any(fnmatchcase(request.resource, pattern) for pattern in as_list(statement.get("Resource", "*")))
        and all(_holds(operator, asked, request) for operator, asked in statement.get("Condition", {}).items())
    )


def _is_by(principal: Any, who: str) -> bool:
    match principal:
        case None:
            return not who
        case "*":
            return True
        case {"Service": names} | {"AWS": names}:
            return who in as_list(names)
    raise AssertionError(principal)


def _holds(operator: str, asked: Mapping[str, Any], request: Request) -> bool:
    if_exists = operator.endswith("IfExists")
    operator = operator.removesuffix("IfExists")
    assert operator in _EQUAL | _LIKE, operator
    for key, wanted in asked.items():
        value = request.context.get(key)
        if value is None and if_exists:
            continue
        patterns = as_list(wanted)
        if value is None or not any(value == p if operator in _EQUAL else fnmatchcase(value, p) for p in patterns):
            return False
    return True


def statements_of(role: Any) -> list[Any]:
    """Return the statements of a role's own policies, or of a managed policy."""
    properties = role["Properties"]
    documents = [properties["PolicyDocument"]] if "PolicyDocument" in properties else []
    documents += [policy["PolicyDocument"] for policy in properties.get("Policies", ())]
    return [statement for document in documents for statement in document["Statement"]]


def without_a_part(statements: list[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the statements with one action of one of them taken away, and what that is."""
    for place, statement in enumerate(statements):
        actions = as_list(statement["Action"])
        for action in actions:
            less = copy.deepcopy(statements)
            less[place]["Action"] = [each for each in actions if each != action]
            yield f"{statement['Sid']} without {action}", less
