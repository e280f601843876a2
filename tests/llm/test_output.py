from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Bpe
from tokenizers import models

from trackbed.llm.output import Output
from trackbed.llm.tokenizer import Tokenizer

# Tokens 0 to 255 are bytes, so that texts can be cut anywhere.
BYTES = Tokenizer(
    Bpe(models.BPE()),
    pieces={i: bytes([i]) for i in range(256)} | {256: b"ab", 257: b"aab", 258: b"bca"},
    specials={},
    ends=frozenset(),
    template=None,
)
stops = st.lists(st.text("abcé", min_size=1, max_size=4), max_size=3).map(tuple)
tokens = st.lists(st.sampled_from([*b"abc", 0xC3, 0xA9, 0xFF, 256, 257, 258]), max_size=30)


def pieces_of(ids: list[int], stop: tuple[str, ...]) -> tuple[list[str], Output]:
    output, pieces = Output(BYTES, stop), []
    for token in ids:
        pieces.append(output.add(token))
        if output.stopped:
            break
    pieces.append(output.finish())
    return pieces, output


@given(tokens)
def test_without_stop_strings_the_text_is_the_whole_decode(ids: list[int]) -> None:
    pieces, output = pieces_of(ids, ())
    assert "".join(pieces) == output.text == BYTES.decode(ids)
    assert not output.stopped


@given(tokens, stops)
def test_the_text_ends_before_the_first_stop_string(ids: list[int], stop: tuple[str, ...]) -> None:
    pieces, output = pieces_of(ids, stop)
    whole = BYTES.decode(ids)
    ends = [(whole.find(s) + len(s), whole.find(s)) for s in stop if s in whole]
    assert output.stopped == bool(ends)
    assert "".join(pieces) == output.text == (whole[: min(ends)[1]] if ends else whole)


@given(tokens, stops)
def test_nothing_is_held_back_that_can_begin_no_stop_string(ids: list[int], stop: tuple[str, ...]) -> None:
    output, released = Output(BYTES, stop), ""
    for n, token in enumerate(ids, 1):
        released += output.add(token)
        if output.stopped:
            return
        held = BYTES.decode(ids[:n]).rstrip("\ufffd")[len(released) :]
        assert not held or any(s.startswith(held) for s in stop)


def test_half_a_character_waits_for_its_other_half() -> None:
    pieces, _ = pieces_of(list("é".encode()), ())
    assert pieces == ["", "é", ""]
