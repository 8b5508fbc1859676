"""Reads template.yaml and watching.yaml as CloudFormation sees them, translated by SAM's own translator.

The template alone defines tables, queues, parameters and each function's environment; everything that runs on this
machine is made from what is read here.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

from local.session import session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Function", "Template"]


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the template.

    Attributes
    ----------
    name
        Its logical id, which is also its folder's name in the build.
    timeout
        Seconds.
    memory
        MB.
    layers
        The logical ids of its layers, in the order in which they are searched.
    sources
        The folders of its sources and of its layers' in the project, in the order in which they are searched.
    variables
        Its environment, with references to other resources in it.
    reserved
        How many invocations of it there may be at once; None where the template does not say.
    """

    name: str
    handler: str
    timeout: int
    memory: int
    layers: tuple[str, ...]
    sources: tuple[str, ...]
    variables: Mapping[str, Any]
    reserved: int | None


@dataclass(frozen=True, slots=True)
class Template:
    """The translated template: CloudFormation's resource types only.

    Attributes
    ----------
    sources
        The folders of the functions' and layers' sources, by logical id.
    """

    document: Mapping[str, Any]
    sources: Mapping[str, str]

    @classmethod
    def read(cls, path: Path, parameters: Mapping[str, str] | None = None) -> Template:
        """Read and translate a SAM template.

        Parameters
        ----------
        parameters
            Values of its parameters, where they differ from the defaults. SAM's translation follows from some.

        Raises
        ------
        samtranslator.model.exceptions.InvalidDocumentException
            The template is not a valid SAM template.
        """
        document = yaml_parse(path.read_text())
        sources = {}
        for name, resource in document["Resources"].items():
            for code in ("CodeUri", "ContentUri"):
                if code in resource.get("Properties", {}):
                    sources[name] = resource["Properties"][code]
                    # The translator needs an address in S3, as `sam package` writes it; nothing reads it.
                    resource["Properties"][code] = "s3://local/build"
        # It warns of each feature that is not switched on.
        logging.getLogger("samtranslator").setLevel(logging.ERROR)
        # SAM would fetch AWS's managed policies; the template uses none.
        translator = Translator({}, Parser(), None, session())
        return cls(translator.translate(document, dict(parameters or {})), sources)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The template's parameters, by name."""
        parameters: Mapping[str, Any] = self.document["Parameters"]
        return parameters

    @property
    def outputs(self) -> Mapping[str, Any]:
        """The template's outputs, by name."""
        outputs: Mapping[str, Any] = self.document["Outputs"]
        return outputs

    def resources(self, type_: str | None = None) -> Mapping[str, Any]:
        """Return the resources, or those of one type, by logical id."""
        resources: Mapping[str, Any] = self.document["Resources"]
        return {name: r for name, r in resources.items() if type_ is None or r["Type"] == type_}

    def functions(self) -> Mapping[str, Function]:
        """Return the functions, by logical id."""
        functions = {}
        for name, resource in self.resources("AWS::Lambda::Function").items():
            properties = resource["Properties"]
            # SAM gives a layer a logical id that changes with its content, and its own for a name.
            layers = tuple(self.resources()[layer["Ref"]]["Properties"]["LayerName"] for layer in properties["Layers"])
            functions[name] = Function(
                name=name,
                handler=properties["Handler"],
                timeout=properties["Timeout"],
                memory=properties["MemorySize"],
                layers=layers,
                sources=tuple(self.sources[each] for each in (name, *layers)),
                variables=properties["Environment"]["Variables"],
                reserved=properties.get("ReservedConcurrentExecutions"),
            )
        return functions
