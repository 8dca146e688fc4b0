# {} -> ["x"]
from html.parser import HTMLParser


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links = []
        self._depth = 0

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.links.append(dict(attrs).get("href"))
        self._depth += 1

    def handle_data(self, data):
        pass


def run():
    p = Links()
    p.feed('<a href="x">t</a>')
    return p.links
