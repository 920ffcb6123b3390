r"""Captions as the words that COCO's caption metrics count: Stanford's PTBTokenizer, then a list of marks to leave out.

The metrics of captions call the Java program with `-preserveLines -lowerCase` (CoreNLP 3.4.1) and drop some
punctuation: https://github.com/tylin/coco-caption/blob/3a9afb2682141a03e1cdc02b0df6770d2c884f6f/pycocoevalcap/tokenizer/ptbtokenizer.py

The program is a lexer: at each place of the text the rule that matches the longest piece gives the next word, of
equally long ones the first. `RULES` are those of its rules that captions meet, written anew from what it answers.
Left out, because a caption hardly has them: telephone numbers, fractions with a whole number before them, tags with
attributes, and abbreviations that are kept whole only before a number or a name.
"""

import re
from functools import lru_cache

# What the list leaves out. Brackets are on it in upper case only and come out as -lrb-, so that they stay.
DROPPED = frozenset(("''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"))

_MARKS = r"\u00ad\u0300-\u036f\u0900-\u0dff"  # parts of letters, to which Python's classes are blind
_NO_LETTERS = r"_\u00b2\u00b3\u00b9\u00bc-\u00be"
_LETTER = rf"(?:[^\W\d{_NO_LETTERS}]|[{_MARKS}])"
_ALNUM = rf"(?:[^\W{_NO_LETTERS}]|[{_MARKS}])"
_APOSTROPHE = r"['\u2019]"
# Kept with their full stop. In either case of the first letter, or in capitals alone.
_ABBREVIATIONS = re.findall(
    r"\w+",
    "adm al alex apr ariz assn assoc atty attys aug ave bancorp bhd bldg blvd brig bros calif capt cf cmdr co col "
    "colo comdr conn corp cos cpl ct dak dec dept det dr drs esq est etc ext feb fla fri ft ga gen gov govs hon "
    "inc ind intl jan jr jul jun kan kans ky lieut lt ltd maj mar md messrs mfg mich minn mlle mme mo mon mont mr "
    "mrs ms mt natl neb nev nov oct okla penn pfc plc ppty pres prof profs pty ptys pvt rd rep reps rev sen sens "
    "sep sept sgt spc sq sr st ste supt supts sys tel tenn thu thurs tue tues univ va vs vt wed wis wisc wm wyo",
)
_CAPITAL_ABBREVIATIONS = ("Ala", "Ark", "Del", "Ill", "La", "Mass", "Miss", "Ore", "Pa", "Ph", "Tex", "Wash")
_ABBREVIATION = "|".join(
    [f"[{word[0].upper()}{word[0]}]{word[1:]}" for word in _ABBREVIATIONS] + [*_CAPITAL_ABBREVIATIONS, "ala"]
)
# Before one of these the full stop behind a single letter ends a sentence.
_STARTERS = re.findall(
    r"\w+",
    "A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More Now "
    "Once One Other Our She Since So Some Such That The Their Then There These They This We What When While Yet "
    "You",
)
_STARTER = "|".join([*_STARTERS, *map(str.upper, _STARTERS)])
_URL_END = r"[^\s\"<>|.!?(){},-]"
_HOST = r"(?:www\.(?:[^\s\"<>|.!?(){},]+\.)+[A-Za-z]{2,4}|(?:[^\s\"`'<>|.!?(){},_$-]+\.)+(?:com|net|org|edu))"

# Group 1 is the word; what a rule wants to see behind it counts for its length and is read again.
RULES = tuple(
    re.compile(rule)
    for rule in (
        r"(</?[^\W\d_][^<>\s]*>)",
        r"((?i:can))(?i:not)",
        r"((?i:gon|wan))(?i:na)",
        r"((?i:got))(?i:ta)",
        r"((?i:gim|lem))(?i:me)",
        rf"({_APOSTROPHE}[Tt])(?i:is|was)",
        rf"([Yy]{_APOSTROPHE})[A-Za-z]",
        rf"({_LETTER}+)[Nn]{_APOSTROPHE}[Tt]",
        rf"([Nn]{_APOSTROPHE}[Tt])",
        rf"({_ALNUM}+(?:[.!?-]{_ALNUM}+)*){_APOSTROPHE}(?:[msdMSD]|re|ve|ll|RE|VE|LL)",
        rf"({_APOSTROPHE}(?:[msdMSD]|re|ve|ll|RE|VE|LL))(?!{_ALNUM})",
        rf"({_APOSTROPHE}n{_APOSTROPHE}?|{_APOSTROPHE}(?:em|[Tt]il|cause|[2-9]0s|\d\d)(?!{_ALNUM}))",
        rf"([dDoOlL]{_APOSTROPHE}{_LETTER}+|[Cc]{_APOSTROPHE}mon|ol{_APOSTROPHE})",
        rf"({_LETTER}{_ALNUM}*(?:[.!?]{_LETTER}{_ALNUM}*)*)",
        r"(\d+[A-Za-z][A-Za-z0-9]*)",
        rf"({_ALNUM}+(?:_{_ALNUM}+)+|_+)",
        rf"({_ALNUM}(?:{_ALNUM}|[.,](?={_ALNUM}))*(?:-{_ALNUM}+)+)",
        r"([A-Za-z](?:\.[A-Za-z])+\.(?:-[A-Za-z0-9]+)*|non-U\.S\.|(?:Ph|Ed)\.D\.)",
        r"([A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2})",
        r"([A-Z]+(?:&[A-Z]+)+)",
        r"([-+]?(?:\d*(?:[.:,]\d+)+|\d+))",
        rf"((?:{_ABBREVIATION})\.)",
        rf"([A-Za-z]\.)(?!\s+(?:(?:{_STARTER})(?:\s|$)|Mr\.|<[a-z]))",
        r"([A-Z]*\$)",
        r"(C\+\+|c\+\+|[CFcf]#)",
        r"((?:pro|anti)-)",
        rf"(https?://[^\s\"<>|()]+{_URL_END})",
        rf"({_HOST}(?:/[^\s\"<>|()]+{_URL_END})?)",
        r"([A-Za-z0-9][^\s\"<>|(){}]*@(?:[^\s\"<>|().{}]+\.)*[^\s\"<>|().{}]+)",
        r"(@[A-Za-z_][A-Za-z_0-9]*)",
        rf"(#{_LETTER}+)",
        r"([<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]](?![A-Za-z]))",
        r"(\^_\^)",
        r"(&(?:amp|lt|gt|quot|apos);)",
        r"([?!]+)",
        r"(\.{2,4}|\u2026)",
        r"([-\u2012-\u2015]+)",
        r"(\*+|#+|@+)",
        r"(``|'')",
        r"([^\s\u200b])",
    )
)
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_SPELT = {
    **_BRACKETS,
    **dict.fromkeys('"\u201c\u201d\u00ab\u00bb', "''"),
    **dict.fromkeys("\u2018\u2019\u2039\u203a", "'"),
    **{"&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": "''", "&apos;": "'"},
    **{"\u20ac": "$", "\u00a3": "#", "\u00a2": "cents", "\u00bd": "1/2", "\u00bc": "1/4", "\u00be": "3/4"},
    "\u2026": "...",
}
_DELETED = re.compile(r"[\U0001f000-\U0010ffff\u2600-\u27bf\ufe0f\ufffd\u200d\u2025]")  # what the program cannot read


@lru_cache(1 << 17)
def ptb_words(caption: str) -> tuple[str, ...]:
    """The words of a caption, in lower case; none for one of white space and dropped marks."""
    text = " ".join(_DELETED.sub(" ", caption).split())
    words, place = [], 0
    while place < len(text):
        if text[place].isspace() or text[place] == "\u200b":
            place += 1
            continue
        word = _longest(text, place)
        place += len(word)
        words.append(_spelt(word))
    return tuple(word for word in words if word not in DROPPED)


def _longest(text: str, place: int) -> str:
    """The word at a place by the rule that matches most."""
    matches = filter(None, (rule.match(text, place) for rule in RULES))
    return max(matches, key=lambda match: match.end()).group(1)  # the first of equally long ones


def _spelt(word: str) -> str:
    if word in _SPELT:
        return _SPELT[word]
    if re.fullmatch("[-\u2012-\u2015]{2,}|[\u2013-\u2015]", word):
        return "--"
    if re.fullmatch(r"\.+", word):
        return "..."
    if word[0] in "<>:;=" and len(word) > 1:  # a face
        word = "".join(_BRACKETS.get(mark, mark) if mark in "()" else mark for mark in word)
    return word.replace("\u2019", "'").lower()
