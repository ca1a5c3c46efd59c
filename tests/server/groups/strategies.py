"""Random selectors, labels and facts, biased towards the values on which readings could differ."""

from __future__ import annotations

from hypothesis import strategies as st

from pilotwave_protocol.fields import MAX_INT, Scalar
from pilotwave_server.devices.facts import normal_number

KEYS = st.sampled_from(["a", "a.b", "a-b", "in", "true", "b", "runtime.x"])
ORDERED_KEYS = st.sampled_from(["a", "a.b", "b", "in"])


def _by(keys: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return keys | keys.map(lambda key: f"fact.{key}")


ASKED, ASKED_IN_ORDER = _by(KEYS), _by(ORDERED_KEYS)

ODD = [
    *(
        "0",
        "-0",
        "00",
        "1",
        "1.0",
        "1.50",
        "-1",
        "-1.5",
        "+1",
        "1.",
        ".5",
        "1e3",
        "1_0",
        " 1",
        "1 ",
    ),
    *("12345678901234.5", "123456789012345678", "٣", "1.1.1", "--1", "-", ".", "1\u0661"),
    *("true", "false", "True", "null", "NULL", "", "NaN", "inf", "0x10"),
    *("O'Brien", 'say "hi"', "back\\slash", "a,b", "(x)", "%", "_", "*", "$", "[0]", "{}", "'; --"),
    *("é", "e\u0301", "ﬀ", "ß", "İ", "😀", "\U0010ffff", "한", "a\u00a0b", "\u2028"),
]

texts = st.sampled_from(ODD) | st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
decimals = st.from_regex(r"-?[0-9]{1,8}(\.[0-9]{1,6})?", fullmatch=True)
numbers = (
    st.sampled_from([0, 1, -1, 1.5, 0.1, 12, MAX_INT, -MAX_INT])
    | st.integers(-MAX_INT, MAX_INT)
    | st.floats(-MAX_INT, MAX_INT).map(normal_number)
)

labels = st.dictionaries(KEYS, texts.filter(bool) | decimals, max_size=4)
facts: st.SearchStrategy[dict[str, Scalar]] = st.dictionaries(
    KEYS, texts | decimals | numbers | st.booleans(), max_size=5
)


def quote(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


values = (texts | decimals | st.integers(-3, 13).map(str)).map(quote)


@st.composite
def conditions(
    draw: st.DrawFn, asked: st.SearchStrategy[str], order: st.SearchStrategy[str]
) -> str:
    kind = draw(st.sampled_from(["set", "unset", "equal", "list", "order"]))
    key = draw(order if kind == "order" else asked)
    if kind == "set":
        return key
    if kind == "unset":
        return f"! {key}"
    if kind == "equal":
        return f"{key} {draw(st.sampled_from(['=', '==', '!=']))} {draw(values)}"
    if kind == "list":
        chosen = draw(st.lists(values, min_size=1, max_size=4))
        return f"{key} {draw(st.sampled_from(['in', 'notin']))} ({', '.join(chosen)})"
    return f"{key}{draw(st.sampled_from(['<', '<=', '>', '>=']))}{draw(decimals)}"


def selectors(
    asked: st.SearchStrategy[str] = ASKED, order: st.SearchStrategy[str] = ASKED_IN_ORDER
) -> st.SearchStrategy[str]:
    """By label and by fact, unless told otherwise."""
    several = st.lists(conditions(asked, order), min_size=1, max_size=3).map(",".join)
    return several | st.just("*")
