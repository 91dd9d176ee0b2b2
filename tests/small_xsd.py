"""A reader of as much XML Schema as the EBU QC schemas use: sequences, references, wildcards and simple types.

No validator is among the dependencies. This one was compared with libxml2's on valid and damaged reports.
"""

import re
from xml.etree import ElementTree

XS = "{http://www.w3.org/2001/XMLSchema}"
BUILT_IN = {
    "string": r"[\s\S]*",
    "token": r"|\S+( \S+)*",
    "anyURI": r"[^\s<>\"{}|\\^`]*",
    "boolean": r"true|false|0|1",
    "decimal": r"[+-]?(\d+(\.\d*)?|\.\d+)",
    "nonNegativeInteger": r"\+?\d+|-0+",
    "dateTime": r"-?\d{4,}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?",
    "duration": r"-?P(?=.)(\d+Y)?(\d+M)?(\d+D)?(T(?=.)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?",
}


class Schema:
    """Declarations of schema files; prefixes other than `xs` stand for a file's own namespace."""

    def __init__(self, *paths):
        self.elements, self.types = {}, {}
        for path in paths:
            root = ElementTree.parse(path).getroot()
            space = root.get("targetNamespace")
            for node in root.iter():
                node.set("space", space)
            for node in root:
                named = self.elements if node.tag == f"{XS}element" else self.types
                named[f"{{{space}}}{node.get('name')}"] = node

    def errors(self, root):
        """What is wrong with a document, one line each."""
        if root.tag not in self.elements:
            return [f"{root.tag}: not declared"]
        return list(self._element(root, self.elements[root.tag]))

    def _named(self, node, attribute):
        return f"{{{node.get('space')}}}{node.get(attribute).split(':')[1]}"

    def _element(self, element, declaration):
        where = element.tag.split("}")[1]
        if element.attrib:
            yield f"{where}: attributes {sorted(element.attrib)}"
        kind = declaration.find(f"{XS}complexType")
        if kind is None and (declaration.get("type") or "").split(":")[0] not in ("", "xs"):
            kind = self.types[self._named(declaration, "type")]
        if kind is None or kind.tag == f"{XS}simpleType":
            if len(element):
                yield f"{where}: has children"
            yield from (f"{where}: {error}" for error in self._value(element.text or "", declaration, "type"))
            return
        if (element.text or "").strip() or any((child.tail or "").strip() for child in element):
            yield f"{where}: has text"
        yield from self._sequence(element, kind.find(f"{XS}sequence"))

    def _sequence(self, element, sequence):
        children, where = list(element), element.tag.split("}")[1]
        for particle in sequence:
            count, largest = 0, particle.get("maxOccurs", "1")
            while children and (largest == "unbounded" or count < int(largest)):
                declared = self._match(children[0], particle)
                if declared is None:
                    break
                child = children.pop(0)
                count += 1
                if declared is not True:
                    yield from self._element(child, declared)
            if count < int(particle.get("minOccurs", "1")):
                yield f"{where}: lacks {particle.get('name') or particle.get('ref')}"
        if children:
            yield f"{where}: {children[0].tag} is not expected there"

    def _match(self, child, particle):
        """The declaration by which a child is that particle; True where anything is, None where it is not."""
        if particle.tag == f"{XS}any":
            is_other = not child.tag.startswith(f"{{{particle.get('space')}}}")
            return self.elements.get(child.tag, True) if is_other else None
        if particle.get("ref"):
            name = self._named(particle, "ref")
            return self.elements[name] if child.tag == name else None
        return particle if child.tag == f"{{{particle.get('space')}}}{particle.get('name')}" else None

    def _value(self, text, node, attribute):
        name = node.get(attribute)
        if name is not None and name.startswith("xs:"):
            if not re.fullmatch(BUILT_IN[name[3:]], text):
                yield f"{text!r} is no {name}"
            return
        simple = self.types[self._named(node, attribute)] if name is not None else node.find(f"{XS}simpleType")
        if (items := simple.find(f"{XS}list")) is not None:
            for item in text.split():
                yield from self._value(item, items, "itemType")
            return
        restriction = simple.find(f"{XS}restriction")
        wrong = list(self._value(text, restriction, "base"))
        yield from wrong
        choices = [facet.get("value") for facet in restriction.iter(f"{XS}enumeration")]
        if choices and text not in choices:
            yield f"{text!r} is none of {choices}"
        for facet in restriction if not wrong else ():
            limit, name = facet.get("value"), facet.tag.removeprefix(XS)
            if (
                (name == "pattern" and not re.fullmatch(limit, text))
                or (name == "minInclusive" and float(text) < float(limit))
                or (name == "maxInclusive" and float(text) > float(limit))
            ):
                yield f"{text!r} is against {name} {limit}"
