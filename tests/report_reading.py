"""Reads what a report holds: its page and its clips."""

import io
import json
from html.parser import HTMLParser

import av
import numpy as np


class Page(HTMLParser):
    """Articles of a page: their text, and attributes of their elements."""

    def __init__(self, text):
        super().__init__()
        self.articles, self.tags, self.urls, self.text = [], [], [], ""
        self.data = self.policy = None
        self._inside = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append(tag)
        self.urls += [found[name] for name in ("src", "href", "action", "poster", "srcset") if found.get(name)]
        if tag == "article":
            self.articles.append({"text": "", "img": None, "audio": None})
        if tag in ("img", "audio"):
            self.articles[-1][tag] = found
        if tag == "meta" and "http-equiv" in found:
            self.policy = found["content"]
        self._inside = "data" if found.get("id") == "data" else tag

    def handle_data(self, text):
        if self._inside == "data":
            self.data = json.loads(text)
            self._inside = None
        elif self._inside not in ("script", "style"):
            self.text += text
            if self.articles and "template" not in self.tags:
                self.articles[-1]["text"] += text


def heard(audio):
    """Samples of a clip, (channels, time)."""
    with av.open(io.BytesIO(audio)) as container:
        [stream] = container.streams.audio
        assert stream.codec_context.name in ("opus", "libopus")
        return np.concatenate([frame.to_ndarray() for frame in container.decode(stream)], axis=1)
