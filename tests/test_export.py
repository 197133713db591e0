"""Exported pages: nothing is asked of the network, no formula is left as TeX, chapters link to chapters."""

import re
from html.parser import HTMLParser

import nbformat
import pytest

import dev

CHAPTERS = dev.find_notebooks([])


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text outside of scripts, styles, code and results."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.skipped = [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.skipped += tag in ("script", "style", "pre", "code", "math")

    def handle_endtag(self, tag):
        self.skipped -= tag in ("script", "style", "pre", "code", "math")

    def handle_data(self, data):
        if not self.skipped:
            self.text.append(data)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("with a space") / "html"
    assert dev.export(dev.parser().parse_args(["export", "--to", str(folder)])) == 0
    return {path.stem: Page(path.read_text(encoding="utf-8")) for path in folder.glob("*.html")}


def formulas(path):
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]
    text = re.sub(r"```.*?```|`[^`\n]*`", "", "\n\n".join(cells), flags=re.S)
    return re.findall(r"\$\$.+?\$\$|\$[^$\n]+?\$", text, flags=re.S)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_page_is_complete_in_itself(pages, path):
    page = pages[path.stem]
    asked = [a.get("src") or a.get("href") for tag, a in page.tags if tag in ("img", "script", "link", "iframe")]
    assert not [address for address in asked if address and not address.startswith("data:")]
    maths = [attributes for tag, attributes in page.tags if tag == "math"]
    assert len(maths) == len(formulas(path)) > 0
    assert "$" not in "".join(page.text)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapters_link_to_chapters(pages, path):
    links = [a["href"] for tag, a in pages[path.stem].tags if tag == "a" and "href" in a]
    inner = [link for link in links if not re.match(r"https?:|#|mailto:", link)]
    assert inner and not [link for link in inner if link.removesuffix(".html") not in pages]


# --- Slides


COURSE = [path for path in CHAPTERS if path.parent.name == "notebooks"]


@pytest.fixture(scope="module")
def decks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    names = [path.stem for path in COURSE]
    assert dev.export(dev.parser().parse_args(["export", "--slides", "--to", str(folder), *names])) == 0
    return {path.name.removesuffix(".slides.html"): path.read_text(encoding="utf-8") for path in folder.glob("*")}


@pytest.mark.parametrize("path", COURSE, ids=lambda path: path.stem)
def test_slides_show_headings_predictions_and_figures_and_tell_the_speaker_the_rest(decks, path):
    cells = nbformat.read(path, as_version=4).cells
    told = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown").split("\n## Exercises")[0]
    told = re.sub(r"```.*?```", "", told, flags=re.S)
    marked = dev.as_slides(nbformat.read(path, as_version=4)).cells
    kinds = [cell.metadata.slideshow.slide_type for cell in marked]
    assert kinds[0] == "slide" and kinds.count("slide") == len(re.findall(r"^##? ", told, re.M))
    assert kinds.count("fragment") == len(re.findall(r"^\*\*Predict", told, re.M))
    assert kinds.count("notes") > 3
    prose = [cell.source for cell in marked if cell.cell_type == "markdown"]
    assert " ".join(" ".join(prose).split()) == " ".join(told.split()) or "```" in "".join(prose)
    results = [output for cell in marked if cell.cell_type == "code" for output in cell.outputs]
    pictures = sum("image/png" in output.get("data", {}) for output in results)
    body = decks[path.stem].split("</head>")[1]
    assert body.count('alt="No description has been provided for this image"') == pictures > 0
    assert "jp-CodeMirrorEditor" not in body and "$$" not in body


def test_slides_fetch_reveal_and_what_it_needs_and_nothing_else(decks):
    for deck in decks.values():
        fetched = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(https?://[^"]+)"', deck)
        assert {re.search(r"reveal\.js|jquery|require\.js|$", address)[0] for address in fetched} <= {
            "reveal.js",
            "jquery",
            "require.js",
        }
