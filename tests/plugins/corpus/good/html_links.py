# {"text": "<p><a href='x.html'>X</a> <a href=\"y\">Y</a></p>"} -> ["x.html", "y"]
from html.parser import HTMLParser


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        if tag == "a":
            for name, value in attrs:
                if name == "href":
                    self.found.append(value)


def run(text):
    parser = Links()
    parser.feed(text)
    return parser.found
