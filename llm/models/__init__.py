"""The architectures that run, by the name that checkpoints give them."""

MODELS = {"LlamaForCausalLM": "trackbed.llm.models.llama:Llama"}
