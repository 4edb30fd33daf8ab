"""Elements of an HTML page, without a browser."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"img", "input", "link", "meta", "br", "hr", "wbr", "option"})


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    text: str = ""  # with that of the elements in it

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@dataclass
class _Elements(HTMLParser):
    all: list[Element] = field(default_factory=list)
    _open: list[Element] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.all.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        while self._open and self._open.pop().tag != tag:
            pass

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data


def elements(html: str, tag: str = "", attribute: str = "", *, of_class: str = "") -> list[Element]:
    """The elements in document order: of a tag, with an attribute, of a class, or all."""
    parser = _Elements()
    parser.feed(html)
    return [
        one
        for one in parser.all
        if tag in ("", one.tag)
        and (not attribute or attribute in one.attributes)
        and (not of_class or of_class in one.attributes.get("class", "").split())
    ]


def fields_of(html: str, form_id: str) -> list[tuple[str, str]]:
    """Names and values of the hidden fields within a form."""
    parser = _Elements()
    start = html.index(f'id="{form_id}"')
    parser.feed(html[html.rindex("<form", 0, start) : html.index("</form>", start)])
    return [
        (one.attributes["name"], one.attributes.get("value", ""))
        for one in parser.all
        if one.tag == "input" and one.attributes.get("type") == "hidden"
    ]
