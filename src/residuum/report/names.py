"""Names that others gave, within a sentence of ours: however they are written, the sentence reads on as before."""

import unicodedata

_ISOLATE, _POP = "\u2068", "\u2069"  # first strong isolate, pop directional isolate
_LEFT_TO_RIGHT = frozenset(("L", "EN", "ES", "ET", "CS", "NSM", "BN", "B", "S", "WS", "ON"))


def isolated(name: str) -> str:
    """The name, in a directional isolate where it holds a letter or a control that turns the direction of writing.

    Unicode Standard Annex 9, section 2.4. An end of an isolate within the name meets a beginning of its own.
    """
    if all(unicodedata.bidirectional(character) in _LEFT_TO_RIGHT for character in name):
        return name
    depth = 1 + name.count(_POP)
    return depth * _ISOLATE + name + depth * _POP
