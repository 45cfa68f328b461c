"""Makes a tiny Llama model with random weights, and a tokenizer trained on the given texts.

    python model.py FOLDER TEXT...

The model never ends a response early: it has no end token, so a response has exactly `max_tokens` tokens.
"""

import sys
from pathlib import Path

from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

# Tokens of prompt and response; larger than any response in the tests.
CONTEXT = 131072
CHAT_TEMPLATE = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant: "


def main(folder: str, texts: list[str]) -> None:
    bpe = ByteLevelBPETokenizer()
    bpe.train(files=texts, vocab_size=2048, min_frequency=2)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, model_max_length=CONTEXT)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)

    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        # 64 per head, because vLLM's attention on CPUs supports only certain sizes.
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    # The defaults of a generation configuration would name end tokens.
    (Path(folder) / "generation_config.json").unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
