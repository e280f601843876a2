"""Text to tokens and back, for the byte-level BPE of a tokenizer.json or a GGUF file.

Ordinary text is encoded by a vocabulary in which the special tokens do not exist, so nothing that a user
writes can become one. They come only from a chat template, or from the markup of a raw prompt. This file
knows nothing of the model that reads the tokens.
"""

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Seq
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers

from trackbed.llm.errors import LLMError, ModelLoadError
from trackbed.llm.gguf import GgufFile, read_gguf
from trackbed.llm.template import ChatTemplate
from trackbed.llm.types import Message, Prompt, RawPrompt

# How text is split before BPE, by the name that GGUF files give it: patterns that each cut out what they
# match, in order. From the pre-tokenizers in the tokenizer.json of GPT-2, SmolLM2 and Llama 3.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
SPLITS = {
    "default": (GPT2,),
    "gpt-2": (GPT2,),
    "smollm": (r"\p{N}", GPT2),
    "llama-bpe": (LLAMA3,),
    "llama3": (LLAMA3,),
    "llama-v3": (LLAMA3,),
}
WHOLE_WORDS = frozenset({"llama-bpe", "llama3", "llama-v3"})  # a word that is a token needs no merges
# Tokens that end a turn in this family of models, whether or not their file says so.
ENDS = ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|im_end|>", "<|endoftext|>")
# The characters from which stand-ins are taken: Unicode's supplementary private use planes.
PRIVATE = (range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4  # kinds of tokens in GGUF that are no part of the BPE


class Tokenizer:
    """A checkpoint's vocabulary, its special tokens and its chat template. It may be used from any thread."""

    def __init__(
        self,
        bpe: tokenizers.Tokenizer,
        *,
        pieces: Mapping[int, bytes],
        specials: Mapping[str, int],
        ends: frozenset[int],
        template: ChatTemplate | None,
    ) -> None:
        """`bpe` knows no special token; `pieces` are the bytes of those that are not special."""
        self.specials = specials
        self.ends = ends  # the tokens that end an answer
        self.template = template
        self.longest = max(map(len, pieces.values()), default=1)  # bytes of a token at most
        self._bpe = bpe
        self._pieces = pieces
        longest_first = sorted(specials, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    @classmethod
    def load(cls, source: Path | GgufFile) -> "Tokenizer":
        """The tokenizer of a checkpoint folder or a GGUF file, by its path or read already. Raises ModelLoadError."""
        if isinstance(source, Path):
            if source.is_dir():
                return cls.from_folder(source)
            source = read_gguf(source)
        return cls.from_gguf(source.metadata, source.path)

    @classmethod
    def from_folder(cls, folder: Path) -> "Tokenizer":
        """From `tokenizer.json` and the files beside it. Raises ModelLoadError."""
        path = folder / "tokenizer.json"
        described = _read_json(path)
        config = _read_json(folder / "tokenizer_config.json", missing_ok=True)
        try:
            model, added = described["model"], described.get("added_tokens") or []
            if model["type"] != "BPE" or "ByteLevel" not in _kinds(described["decoder"]):
                raise ModelLoadError(f"{path} holds a {model['type']} tokenizer; this runtime reads byte-level BPE")
            vocabulary: dict[str, int] = model["vocab"]
            letters = {token["content"]: token["id"] for token in added}
            specials = {
                token["content"]: token["id"] for token in added if token["special"] or _is_markup(token["content"])
            }
            pieces = _pieces(vocabulary) | {i: text.encode() for text, i in letters.items()}
            for text in specials:
                vocabulary.pop(text, None)
            # An added token has the id that the vocabulary gives it.
            vocabulary |= {text: i for text, i in letters.items() if text not in specials}
            described["added_tokens"] = [token for token in added if token["content"] not in specials]
            described["post_processor"] = described["truncation"] = described["padding"] = model["unk_token"] = None
            named = {key: _content(config[key]) for key in ("bos_token", "eos_token") if config.get(key)}
            ends = _end_ids(folder) | {i for text, i in specials.items() if text == named.get("eos_token")}
            template = _folder_template(folder, config)
        except (KeyError, TypeError, AttributeError) as error:
            raise ModelLoadError(f"{path} is not a tokenizer that this runtime reads: {error!r}") from error
        return cls(
            _parse(json.dumps(described), path),
            pieces={i: piece for i, piece in pieces.items() if i not in specials.values()},
            specials=specials,
            ends=frozenset(ends),
            template=ChatTemplate(template, named) if template else None,
        )

    @classmethod
    def from_gguf(cls, metadata: Mapping[str, Any], path: Path) -> "Tokenizer":
        """From the `tokenizer.` keys of a GGUF file. Raises ModelLoadError."""
        try:
            if (kind := metadata["tokenizer.ggml.model"]) != "gpt2":
                raise ModelLoadError(f"{path} holds a {kind!r} tokenizer; this runtime reads byte-level BPE, 'gpt2'")
            if (split := metadata.get("tokenizer.ggml.pre", "default")) not in SPLITS:
                known = ", ".join(SPLITS)
                raise ModelLoadError(f"{path} splits text by the rules of {split!r}; this runtime knows: {known}")
            tokens: list[str] = metadata["tokenizer.ggml.tokens"]
            kinds: list[int] = metadata["tokenizer.ggml.token_type"]
            merges: list[str] = metadata["tokenizer.ggml.merges"]
            added = {text: i for i, text in enumerate(tokens) if kinds[i] in (UNKNOWN, CONTROL, USER_DEFINED)}
            specials = {text: i for text, i in added.items() if text and (kinds[i] != USER_DEFINED or _is_markup(text))}
            vocabulary = {text: i for i, text in enumerate(tokens) if text not in specials}
            pieces = _pieces(vocabulary) | {i: text.encode() for text, i in added.items() if text not in specials}
            named = {
                f"{name}_token": tokens[metadata[f"tokenizer.ggml.{name}_token_id"]]
                for name in ("bos", "eos")
                if f"tokenizer.ggml.{name}_token_id" in metadata
            }
            ends = {
                metadata[key]
                for key in (f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom"))
                if key in metadata
            }
            template = metadata.get("tokenizer.chat_template")
            pairs = [(first, second) for first, _, second in (merge.partition(" ") for merge in merges)]
            bpe = tokenizers.Tokenizer(models.BPE(vocabulary, pairs, ignore_merges=split in WHOLE_WORDS))
        except ModelLoadError:
            raise
        except Exception as error:
            raise ModelLoadError(f"{path} holds no tokenizer that this runtime reads: {error!r}") from error
        bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated") for pattern in SPLITS[split]]
            + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        return cls(
            bpe,
            pieces=pieces,
            specials=specials,
            ends=frozenset(ends | {specials[text] for text in ENDS if text in specials}),
            template=ChatTemplate(template, named) if template else None,
        )

    def encode(self, text: str) -> list[int]:
        """The tokens of ordinary text, whatever is written in it: none of them is special."""
        # JSON can carry half of a surrogate pair, which is no character.
        whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return self._bpe.encode(whole, add_special_tokens=False).ids

    def encode_prompt(self, prompt: Prompt) -> list[int]:
        """The tokens of a prompt; the special ones are those of the chat template or of markup, and no others.

        Raises LLMError where messages are given and the checkpoint has no chat template, or one that refuses them.
        """
        ids: list[int] = []
        ordinary: list[str] = []
        for stretch in self._stretches(prompt):
            if isinstance(stretch, str):
                ordinary.append(stretch)
                continue
            ids += self.encode("".join(ordinary))
            ids.append(stretch)
            ordinary.clear()
        return ids + self.encode("".join(ordinary))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens; special ones have none, and bytes that are no UTF-8 become U+FFFD."""
        return b"".join(map(self.piece, ids)).decode("utf-8", "replace")

    def piece(self, token: int) -> bytes:
        """The bytes of one token, which may end inside a character; a special one has none."""
        return self._pieces.get(token, b"")

    def _stretches(self, prompt: Prompt) -> Iterator[str | int]:
        """Ordinary text and special tokens, in order."""
        if isinstance(prompt, RawPrompt):
            for part in prompt.parts:
                yield from self._split(part.text) if part.markup else [part.text]
            return
        if self.template is None:
            raise LLMError("this checkpoint has no chat template, so it takes no messages: give a RawPrompt")
        disguised, undo = self._disguise(prompt, self.template.source)
        for stretch in self._split(self.template.render(disguised)):
            yield stretch.translate(undo) if isinstance(stretch, str) else stretch

    def _split(self, text: str) -> Iterator[str | int]:
        """Text in which special tokens are tokens."""
        start = 0
        for match in self._special.finditer(text):
            yield text[start : match.start()]
            yield self.specials[match[0]]
            start = match.end()
        yield text[start:]

    def _disguise(self, messages: Seq[Message], source: str) -> tuple[list[Message], dict[int, str]]:
        """The messages with stand-ins for the letters that special tokens begin and end with, and how to undo it.

        A template can join what users write, trim it, change its case or cut pieces from it; whatever it does, no
        special token can begin or end in a message then. Only one that is all template text is left.
        """
        written = set(source).union(*self.specials, *(message.content for message in messages))
        unwritten = (c for plane in PRIVATE for c in map(chr, plane) if c not in written)
        stand_ins = dict(zip(sorted(set("".join(self.specials))), unwritten, strict=False))
        if len(stand_ins) < len(set("".join(self.specials))):
            raise LLMError("these messages use every private-use character of Unicode: leave some out")
        every = {ord(letter): stand_in for letter, stand_in in stand_ins.items()}
        edges = {ord(letter): stand_ins[letter] for special in self.specials for letter in (special[0], special[-1])}

        def disguised(content: str) -> str:
            # A template could also write both ends of a special token around a message that is its middle.
            middle = content.strip()
            return content.translate(every if any(middle in special for special in self.specials) else edges)

        undo = {ord(stand_in): letter for letter, stand_in in stand_ins.items()}
        return [replace(message, content=disguised(message.content)) for message in messages], undo


class TokenReader:
    """Turns tokens into text one at a time: whole characters only, and joined they are the whole decode."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._piece = tokenizer.piece
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self, token: int) -> str:
        """The characters that this token completes."""
        return self._utf8.decode(self._piece(token))

    def finish(self) -> str:
        """What is left at the end: nothing, or U+FFFD for half a character."""
        return self._utf8.decode(b"", final=True)


def _is_markup(text: str) -> bool:
    """Whether an added token has a meaning of its own, as `<think>` has: not so blanks and single characters."""
    return len(text) > 1 and not text.isspace()


def _kinds(part: Mapping[str, Any]) -> set[str]:
    """The types of a tokenizer.json's part: its own, or those of a sequence's members."""
    return {part["type"], *(member["type"] for member in part.get("decoders", ()))}


def _pieces(vocabulary: Mapping[str, int]) -> dict[int, bytes]:
    """The bytes behind a byte-level vocabulary, in which each byte is written as one printable character."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    table = {chr(byte): byte for byte in printable} | {chr(0x100 + n): byte for n, byte in enumerate(others)}
    bytes_as_letters = _Translation({ord(letter): chr(byte) for letter, byte in table.items()})
    pieces = {}
    for text, i in vocabulary.items():
        try:
            pieces[i] = text.translate(bytes_as_letters).encode("latin-1")
        except UnicodeEncodeError:  # a letter stands for no byte
            pieces[i] = text.encode()
    return pieces


class _Translation(dict[int, str]):
    """Letters by code; one that is not there becomes what no encoding has."""

    def __missing__(self, letter: int) -> str:
        return "\ud800"


def _parse(described: str, path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(described)
    except Exception as error:  # the library raises nothing narrower
        raise ModelLoadError(f"{path} is not a tokenizer that this runtime reads: {error}") from error


def _content(token: str | Mapping[str, str]) -> str:
    """A token of tokenizer_config.json, which is written as a string or as an object."""
    return token if isinstance(token, str) else token["content"]


def _end_ids(folder: Path) -> set[int]:
    """The tokens that end an answer, as generation_config.json says, or else config.json."""
    for name in ("generation_config.json", "config.json"):
        found = _read_json(folder / name, missing_ok=True).get("eos_token_id")
        if found is not None:
            return set(found) if isinstance(found, list) else {found}
    return set()


def _folder_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The chat template of a folder, from the file of its own or from tokenizer_config.json."""
    if (path := folder / "chat_template.jinja").exists():
        return path.read_text(encoding="utf-8")
    found = config.get("chat_template")
    if isinstance(found, list):  # of named ones
        return next((named["template"] for named in found if named["name"] == "default"), None)
    return found


def _read_json(path: Path, *, missing_ok: bool = False) -> dict[str, Any]:  # Any: it comes from a file
    if missing_ok and not path.exists():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ModelLoadError(f"{path} holds no object")
    return found
