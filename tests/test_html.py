"""Tables for notebooks."""

from html.parser import HTMLParser

from snukeras import _html


class Cells(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.texts = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


def test_every_text_is_escaped_and_control_characters_are_shown():
    nasty = "<script>&\"'\x1b[2J"
    cells = Cells()
    cells.feed(_html.table((nasty, "b"), [(nasty, 3)], nasty, [nasty]))
    assert "script" not in cells.tags
    texts = [text for text in cells.texts if text.strip()]
    shown = "<script>&\"'\\x1b[2J"
    assert texts == [shown, shown, "b", shown, "3", shown]
