"""Tiny checkpoints, made where they are needed."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from trackbed.llm.config import read_gguf_config
from trackbed.llm.gguf import read_gguf

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|reserved|>"]
# As their tokenizer.json has them.
SMOLLM = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)
LLAMA3 = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Split(
            Regex(
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                r"|\s*[\r\n]+|\s+(?!\S)|\s+"
            ),
            "isolated",
        ),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]
)


def train(split: pre_tokenizers.PreTokenizer, *, ignore_merges: bool = False) -> PreTrainedTokenizerFast:
    """A small byte-level BPE, learnt from a text that does not change, with a chat template."""
    bpe = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    bpe.pre_tokenizer = split
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIALS,
        show_progress=False,
    )
    licence = Path(__file__).parents[2] / "LICENSE"
    bpe.train_from_iterator([licence.read_text(encoding="utf-8")], trainer)
    bpe.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<|endoftext|>", eos_token="<|im_end|>", chat_template=CHATML
    )


@pytest.fixture(scope="session")
def smollm_like() -> PreTrainedTokenizerFast:
    return train(SMOLLM)


@pytest.fixture(scope="session")
def llama3_like() -> PreTrainedTokenizerFast:
    return train(LLAMA3, ignore_merges=True)


@pytest.fixture(scope="session")
def tiny_chat(smollm_like: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 256 tokens' context that takes chats, as transformers saves it."""
    folder = tmp_path_factory.mktemp("tiny-chat")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(smollm_like),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.6,  # far enough from uniform that texts vary
        bos_token_id=0,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=2)
    model.save_pretrained(folder)
    smollm_like.save_pretrained(folder)
    return folder


def load_reference(path: Path) -> LlamaForCausalLM:
    """A Llama GGUF file as transformers runs it, in float32, with the weights as the gguf package unpacks them."""
    file = read_gguf(path)
    ours = read_gguf_config(file)

    def weights(name: str) -> torch.Tensor:
        tensor = file.tensors[name]
        packed = np.frombuffer(file.data(name), np.uint8).reshape(*tensor.shape[:-1], -1)
        dense = torch.tensor(gguf.dequantize(packed, gguf.GGMLQuantizationType[tensor.kind])).view(tensor.shape)
        if name.endswith(("attn_q.weight", "attn_k.weight")):  # whose rows llama.cpp reorders
            dense = dense.view(-1, ours.head_dim // 2, 2, ours.hidden_size).transpose(1, 2).reshape(tensor.shape)
        return dense

    config = LlamaConfig(
        vocab_size=ours.vocab_size,
        hidden_size=ours.hidden_size,
        intermediate_size=ours.intermediate_size,
        num_hidden_layers=ours.layers,
        num_attention_heads=ours.heads,
        num_key_value_heads=ours.kv_heads,
        max_position_embeddings=ours.max_length,
        rms_norm_eps=ours.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": ours.rope_base},
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).eval()
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, ours.layers)
    theirs = {name: f"{names.get_name(name.removesuffix('.weight'))}.weight" for name in model.state_dict()}
    del theirs["lm_head.weight"]  # which is the embedding
    model.load_state_dict({name: weights(stored) for name, stored in theirs.items()}, strict=False)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2)
    return model
