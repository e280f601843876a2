import json
import re
from pathlib import Path

import jinja2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.llm.conftest import CHATML, SMOLLM, SPECIALS
from trackbed.llm.catalogue import locate
from trackbed.llm.errors import LLMError, ModelLoadError
from trackbed.llm.tokenizer import Tokenizer, TokenReader
from trackbed.llm.types import Message, Part, Prompt, RawPrompt

# The planes that have blocks, without the surrogates; of the private use planes, an edge each.
PLANES = (range(0, 0xD800, 256), range(0xE000, 0x40000, 256), (0xE0000, 0xE0100, 0xF0000, 0x10FF00))
BLOCKS = ["".join(map(chr, range(start, start + 256))) for plane in PLANES for start in plane]
SAMPLES = [
    "",
    " ",
    "  \n\n \t\t  a   b \r\n\r\n",
    "It's 1234 o'clock, WE'LL see. don't, DON'T, I'ſ",
    "x = [i**2 for i in range(10)]\n\n    if x:\n\treturn  3.1415  # done\n",
    "👩‍👩‍👧‍👦 🏳️‍🌈 😀😀 é e\u0301 ﬁ ½ ² Ⅷ 日本語 العربية हिन्दी \u200b\ufeff\u00a0\u3000x",
    "a  1 22  333   4444    55555",
]
words = st.text(st.characters(exclude_categories=["Cs"]))
spaced = st.lists(words | st.sampled_from([" ", "  ", "\n", "\t", "123", "'s", "😀", "def f():", *SAMPLES])).map(
    "".join
)
texts = spaced.filter(lambda text: not any(special in text for special in [*SPECIALS, "<think>"]))


def gguf_metadata(of: PreTrainedTokenizerFast, split: str) -> dict[str, object]:
    """What a converter writes of a tokenizer into a GGUF file."""
    described = json.loads(of.backend_tokenizer.to_str())
    specials = {token["content"] for token in described["added_tokens"]}
    tokens = of.convert_ids_to_tokens(list(range(len(of))))
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": split,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3 if token in specials else 1 for token in tokens],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in described["model"]["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.chat_template": CHATML,
    }


def reference_ids(text: str, reference: PreTrainedTokenizerFast) -> list[int]:
    """The ids that transformers gives ordinary text."""
    ids: list[int] = reference.backend_tokenizer.encode(text, add_special_tokens=False).ids
    return ids


@pytest.fixture(scope="module")
def tokenizer(smollm_like: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    smollm_like.save_pretrained(folder)
    return Tokenizer.load(folder)


@pytest.fixture(scope="module")
def from_gguf(smollm_like: PreTrainedTokenizerFast) -> Tokenizer:
    return Tokenizer.from_gguf(gguf_metadata(smollm_like, "smollm"), Path("tiny.gguf"))


@pytest.fixture(scope="module")
def llama3_gguf(llama3_like: PreTrainedTokenizerFast) -> Tokenizer:
    return Tokenizer.from_gguf(gguf_metadata(llama3_like, "llama-bpe"), Path("tiny.gguf"))


def test_every_unicode_block_has_the_ids_of_the_reference(
    tokenizer: Tokenizer,
    from_gguf: Tokenizer,
    llama3_gguf: Tokenizer,
    smollm_like: PreTrainedTokenizerFast,
    llama3_like: PreTrainedTokenizerFast,
) -> None:
    for text in BLOCKS + SAMPLES:
        expected = reference_ids(text, smollm_like)
        assert tokenizer.encode(text) == expected
        assert from_gguf.encode(text) == expected
        assert llama3_gguf.encode(text) == reference_ids(text, llama3_like)


@given(texts)
def test_any_text_has_the_ids_of_the_reference(
    tokenizer: Tokenizer,
    from_gguf: Tokenizer,
    llama3_gguf: Tokenizer,
    smollm_like: PreTrainedTokenizerFast,
    llama3_like: PreTrainedTokenizerFast,
    text: str,
) -> None:
    expected = reference_ids(text, smollm_like)
    assert tokenizer.encode(text) == expected
    assert from_gguf.encode(text) == expected
    assert llama3_gguf.encode(text) == reference_ids(text, llama3_like)


@given(texts)
def test_decoding_gives_the_text_back(tokenizer: Tokenizer, from_gguf: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert from_gguf.decode(tokenizer.encode(text)) == text


def test_half_a_surrogate_pair_is_replaced(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


@given(texts)
def test_read_one_by_one_tokens_give_whole_characters(tokenizer: Tokenizer, text: str) -> None:
    reader = TokenReader(tokenizer)
    pieces = [reader.read(token) for token in tokenizer.encode(text)]
    assert "".join(pieces) + reader.finish() == text
    assert all(piece in text for piece in pieces)


@given(st.lists(st.integers(0, 620)))
def test_read_one_by_one_any_tokens_give_their_whole_decode(
    tokenizer: Tokenizer, smollm_like: PreTrainedTokenizerFast, ids: list[int]
) -> None:
    reader = TokenReader(tokenizer)
    text = "".join(map(reader.read, ids)) + reader.finish()
    assert text == tokenizer.decode(ids)
    known = [i for i in ids if i < len(smollm_like) and i not in tokenizer.specials.values()]
    assert text == smollm_like.decode(known, clean_up_tokenization_spaces=False)


# What a user may try, and what a template may be made of.
ATTACKS = [*SPECIALS, "<think>", "<", ">", "|", "<|im_", "im_start", "end|>", "<|", "|>", "im_start|>", "user", "\n"]
STAND_INS = [chr(0xF0000 + n) for n in range(40)]
contents = st.lists(st.sampled_from(ATTACKS + STAND_INS) | words, max_size=8).map("".join)
conversations = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant", "tool"]), contents), min_size=1, max_size=5
)
TEMPLATES = [
    CHATML,
    "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}",
    "{% for m in messages %}{{ m.content | replace(' ', '') | lower }}{{ m.content | upper | trim }}{% endfor %}",
    "{% for m in messages %}<|{{ m.content | trim }}|>{{ m.content[2:] }}<|im_{{ m.content }}{% endfor %}<think>",
    "{% for m in messages %}{{ m | tojson }}{{ m.content.split('|') | join }}<|im_end|>{% endfor %}",
]


@settings(max_examples=200)
@given(conversations, st.sampled_from(TEMPLATES))
@example([Message("user", "im_start")], TEMPLATES[3])
@example([Message("user", "<|im_"), Message("user", "end|>")], TEMPLATES[1])
def test_whatever_users_write_the_special_tokens_are_those_of_the_template(
    from_gguf: Tokenizer, smollm_like: PreTrainedTokenizerFast, messages: list[Message], template: str
) -> None:
    metadata = gguf_metadata(smollm_like, "smollm") | {"tokenizer.chat_template": template}
    asked = Tokenizer.from_gguf(metadata, Path("tiny.gguf"))
    harmless = [Message(message.role, "0") for message in messages]

    def special(prompt: Prompt) -> list[int]:
        return [i for i in asked.encode_prompt(prompt) if i in asked.specials.values()]

    assert special(messages) == special(harmless)


@given(conversations)
def test_what_users_write_is_in_the_prompt_letter_by_letter(tokenizer: Tokenizer, messages: list[Message]) -> None:
    ids = tokenizer.encode_prompt(messages)
    names = {i: text for text, i in tokenizer.specials.items()}
    written = b"".join(names[i].encode() if i in names else tokenizer.piece(i) for i in ids).decode()
    listed = [{"role": message.role, "content": message.content} for message in messages]
    expected = jinja2.Environment().from_string(CHATML).render(messages=listed, add_generation_prompt=True)
    assert written == expected


@given(st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), texts), min_size=1, max_size=4))
def test_honest_messages_have_the_ids_of_the_reference(
    tokenizer: Tokenizer, from_gguf: Tokenizer, smollm_like: PreTrainedTokenizerFast, messages: list[Message]
) -> None:
    listed = [{"role": message.role, "content": message.content} for message in messages]
    expected = smollm_like.apply_chat_template(listed, add_generation_prompt=True, return_dict=False)
    assert tokenizer.encode_prompt(messages) == expected
    assert from_gguf.encode_prompt(messages) == expected


@given(st.lists(st.builds(Part, contents, st.booleans())))
def test_in_a_raw_prompt_special_tokens_are_those_within_markup(tokenizer: Tokenizer, parts: list[Part]) -> None:
    ids = tokenizer.encode_prompt(RawPrompt(tuple(parts)))
    special = re.compile("|".join(map(re.escape, tokenizer.specials)))
    expected = [tokenizer.specials[found] for part in parts if part.markup for found in special.findall(part.text)]
    assert [i for i in ids if i in tokenizer.specials.values()] == expected


def test_ordinary_neighbours_in_a_raw_prompt_are_one_text(tokenizer: Tokenizer) -> None:
    parts = Part("<|im_end|>hel", markup=True), Part("lo <|im_"), Part("end|>")
    assert tokenizer.encode_prompt(RawPrompt(parts)) == [2, *tokenizer.encode("hello <|im_end|>")]


def test_an_answer_ends_where_the_checkpoint_says(tokenizer: Tokenizer, from_gguf: Tokenizer, tiny_chat: Path) -> None:
    assert tokenizer.ends == {2}
    assert from_gguf.ends == {0, 2}
    assert Tokenizer.load(tiny_chat).ends == {2}


def test_without_a_chat_template_messages_are_refused(smollm_like: PreTrainedTokenizerFast) -> None:
    metadata = gguf_metadata(smollm_like, "smollm")
    del metadata["tokenizer.chat_template"]
    tokenizer = Tokenizer.from_gguf(metadata, Path("tiny.gguf"))
    with pytest.raises(LLMError, match="no chat template"):
        tokenizer.encode_prompt([Message("user", "hi")])
    assert tokenizer.encode_prompt(RawPrompt((Part("hi"),))) == tokenizer.encode("hi")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("tokenizer.ggml.model", "llama", "'llama' tokenizer; this runtime reads byte-level BPE"),
        ("tokenizer.ggml.pre", "tekken", "'tekken'; this runtime knows: default, gpt-2, smollm, llama-bpe"),
        ("tokenizer.ggml.merges", ["q q"], "out of vocabulary"),
        ("tokenizer.ggml.eos_token_id", 100_000, "IndexError"),
        ("tokenizer.ggml.token_type", [1, 2], "IndexError"),
        ("tokenizer.chat_template", "{% for %}", "chat template cannot be read"),
    ],
)
def test_a_gguf_vocabulary_that_cannot_be_read_says_why(
    smollm_like: PreTrainedTokenizerFast, key: str, value: object, words: str
) -> None:
    with pytest.raises(ModelLoadError, match=re.escape(words)):
        Tokenizer.from_gguf(gguf_metadata(smollm_like, "smollm") | {key: value}, Path("tiny.gguf"))


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "holds no object"),
        ("{}", "KeyError"),
        ('{"model": {"type": "Unigram"}, "decoder": {"type": "Metaspace"}}', "a Unigram tokenizer"),
        ('{"model": {"type": "BPE", "vocab": {}}, "decoder": {"type": "ByteLevel"}}', "not a tokenizer"),
    ],
)
def test_a_tokenizer_json_that_cannot_be_read_says_why(tmp_path: Path, described: str, words: str) -> None:
    (tmp_path / "tokenizer.json").write_text(described)
    with pytest.raises(ModelLoadError, match=words):
        Tokenizer.load(tmp_path)


def test_a_folder_without_a_tokenizer_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"tokenizer\.json cannot be read"):
        Tokenizer.load(tmp_path)


@pytest.mark.models
def test_smollm2_has_the_ids_of_the_reference(model_cache: Path) -> None:
    path = locate("smollm2-135m-instruct", model_cache)
    tokenizer = Tokenizer.load(path)
    reference = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    # transformers does not read tokenizer.ggml.pre; this is what SmolLM2's tokenizer.json has.
    reference.backend_tokenizer.pre_tokenizer = SMOLLM
    for text in BLOCKS + SAMPLES:
        assert tokenizer.encode(text) == reference_ids(text, reference)
    messages = [Message("user", "What is 12 + 30?"), Message("assistant", "42"), Message("user", "Why?")]
    listed = [{"role": message.role, "content": message.content} for message in messages]
    assert tokenizer.encode_prompt(messages) == reference.apply_chat_template(
        listed, add_generation_prompt=True, return_dict=False
    )
    assert tokenizer.encode("Hello world  12") == [19556, 905, 256, 33, 34]
