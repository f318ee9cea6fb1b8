"""The words of captions, as they are learned, written and compared."""

from __future__ import annotations

import re
import unicodedata

_OTHER_SIGNS = "#%&*/@\\"  # punctuation for Unicode, but not in the list of pycocoevalcap
_SAME = str.maketrans("’‐‑", "'--")
_WITHIN_WORDS = "'-·׳״־"  # apostrophe, hyphen, and what is alike in Catalan and Hebrew
_WITHIN_NUMBERS = ".,:"


def tokens_of(caption: str) -> list[str]:
    """The words of a caption in lower case, without punctuation; none if it has no words.

    Punctuation is what the list of pycocoevalcap has (quotes, brackets, dashes, . ? ! , : ;) and all of other scripts
    ("¿", "。", "؟"). It separates words like white space does, but stays within a word ("t-shirt", "man's") or a number
    ("3.5"). Other signs (% & + $), letters of any language and their combining marks stay; equivalent Unicode is made
    the same (NFC).

    The tokenizer in Java of pycocoevalcap differs: it splits contractions ("man 's", "do n't") and signs ("50 %") off,
    keeps brackets as words ("-lrb-"), and knows no punctuation of other scripts. In a language that writes no spaces
    (Chinese, Japanese, Thai) all between two punctuation marks is one token, which matches as a whole or not at all:
    give it texts with spaces between words or characters.
    """
    text = unicodedata.normalize("NFC", caption.lower()).translate(_SAME)
    return _NO_WORD_CHARACTER.sub(_without_punctuation, f" {text} ").split()


_NO_WORD_CHARACTER = re.compile(r"[^\w\s]")  # also combining marks, which must stay


def _without_punctuation(found: re.Match[str]) -> str:
    """A space in the place of a punctuation mark between two others; any other character as it is."""
    sign, before, after = found[0], found.string[found.start() - 1], found.string[found.end()]
    if sign != "`" and (unicodedata.category(sign)[0] != "P" or sign in _OTHER_SIGNS):
        return sign
    if sign in _WITHIN_WORDS and all(unicodedata.category(other)[0] in "LMN" for other in (before, after)):
        return sign
    if sign in _WITHIN_NUMBERS and before.isdecimal() and after.isdecimal():
        return sign
    return " "
