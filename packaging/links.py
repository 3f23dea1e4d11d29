#!/usr/bin/env python3
"""Checks the links of a book: every page, picture and section that a page names is there. Of pages in Markdown it checks
files alone.

usage: packaging/links.py DIRECTORY
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """What a page links to, and the sections that it has."""

    def __init__(self, path):
        super().__init__()
        self.links, self.sections = [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.sections.add(attrs.get("id"))
        wanted = {"a": "href", "img": "src"}.get(tag)
        if attrs.get(wanted):
            self.links.append(attrs[wanted])


class Text:
    """What a page in Markdown links to."""

    def __init__(self, path):
        text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        self.links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
        self.sections = set()


def broken(pages, path, link):
    """Whether the link on the page at that path leads nowhere."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return False
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_file():
        return True
    return bool(parts.fragment) and target in pages and unquote(parts.fragment) not in pages[target].sections


def main():
    directory = Path(sys.argv[1]).resolve()
    # All pages in one, and the one for a server's errors, have their links relative to elsewhere.
    paths = [path for path in directory.rglob("*.html") if path.name not in ("print.html", "404.html")]
    pages = {path: Page(path) for path in paths} | {path: Text(path) for path in directory.rglob("*.md")}
    wrong = [f"{path.relative_to(directory)}: {link}"
             for path, page in pages.items() for link in page.links if broken(pages, path, link)]
    print("\n".join(wrong) or f"{len(pages)} pages, {sum(len(page.links) for page in pages.values())} links: none is broken")
    sys.exit(bool(wrong) or len(pages) < 2)


if __name__ == "__main__":
    main()
