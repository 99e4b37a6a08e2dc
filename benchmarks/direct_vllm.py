"""vLLM called directly, without any of our engine code: the reference that the fleet's outputs are compared with.

``python -m benchmarks.direct_vllm MODEL OPTIONS_JSON OUTPUT < requests.jsonl`` writes one line per request to OUTPUT:
text, token ids and why each ended, in order; its first line says what was measured. (vLLM itself writes to stdout.)
"""

import json
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Read the requests, generate all of them in one call, write the outputs."""
    from vllm import LLM, SamplingParams

    llm = LLM(model=sys.argv[1], **json.loads(sys.argv[2]))
    requests = [json.loads(line) for line in sys.stdin]
    prompts: list[Any] = []
    for request in requests:
        if "messages" in request:
            tokens = llm.get_tokenizer().apply_chat_template(
                request["messages"], add_generation_prompt=True, tokenize=True, return_dict=True
            )
            prompts.append({"prompt_token_ids": list(tokens["input_ids"])})
        elif "prompt_token_ids" in request:
            prompts.append({"prompt_token_ids": request["prompt_token_ids"]})
        else:
            prompts.append({"prompt": request["prompt"]})
    params = [SamplingParams(**request["resolved"]) for request in requests]
    started_at = time.monotonic()
    done = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.monotonic() - started_at
    choices = [output.outputs[0] for output in done]
    measured = {"seconds": seconds, "completion_tokens": sum(len(choice.token_ids) for choice in choices)}
    lines = [
        {"text": choice.text, "token_ids": list(choice.token_ids), "finish_reason": choice.finish_reason}
        for choice in choices
    ]
    Path(sys.argv[3]).write_text("\n".join(json.dumps(line) for line in [measured, *lines]), encoding="utf-8")


if __name__ == "__main__":
    main()
