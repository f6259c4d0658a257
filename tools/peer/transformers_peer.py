"""The peer: transformers on PyTorch, with a static cache and, on a GPU, steps captured as CUDA graphs.

Makes a model of a given shape with random BF16 weights where it will run, and times a prompt and the
generation of tokens by argmax. A program of its own, started by tools/compare-transformers with
whatever Python has torch: it reads one request a line on stdin ({"prompt": tokens} or
{"generate": tokens}) and answers each with one line of JSON ({"seconds": ...}) on stdout.

usage: transformers_peer.py SHAPE_JSON DEVICE THREADS LONGEST MODE      (mode: eager, graph or compile)
"""
import inspect
import json
import sys
import time

import torch
import transformers

CLASSES = {"llama": ("LlamaConfig", "LlamaForCausalLM"), "qwen2": ("Qwen2Config", "Qwen2ForCausalLM"),
           "qwen3": ("Qwen3Config", "Qwen3ForCausalLM")}


def make_config(architecture, shape):
    if architecture not in CLASSES:
        sys.exit(f"no transformers class known for architecture '{architecture}' (have: {', '.join(CLASSES)})")
    return getattr(transformers, CLASSES[architecture][0])(
        hidden_size=shape["hidden"], intermediate_size=shape["ffn"], num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"], num_key_value_heads=shape["kv_heads"], head_dim=shape["head_dim"],
        vocab_size=shape["vocab"], max_position_embeddings=shape["context"], rms_norm_eps=shape["norm_eps"],
        tie_word_embeddings=shape["tied_embedding"], use_cache=True)


def make_model(architecture, config, device):
    torch.manual_seed(1)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = getattr(transformers, CLASSES[architecture][1])(config)
    finally:
        torch.set_default_dtype(before)
    model.set_attn_implementation("sdpa")
    return model.eval()


class Runner:
    """One sequence with a static cache; a step takes the token before it and leaves the next in its place."""

    def __init__(self, model, device, longest, mode):
        self.model, self.device, self.longest, self.mode = model, device, longest, mode
        accepted = inspect.signature(type(model).forward).parameters
        self.cache_name = "past_key_values" if "past_key_values" in accepted else "cache"
        self.wants_cache_position = "cache_position" in accepted
        self.token = torch.ones((1, 1), dtype=torch.long, device=device)
        self.position = torch.zeros((1, 1), dtype=torch.long, device=device)
        self.fresh()
        self.step = self.eager_step
        if mode == "compile":
            self.forward = torch.compile(model, mode="reduce-overhead", fullgraph=True, dynamic=False)
        else:
            self.forward = model
        if mode == "graph":
            self.capture()

    def fresh(self):
        """An empty cache, in the same memory if there is one: graphs keep its addresses."""
        if getattr(self, "cache", None) is None:
            self.cache = transformers.StaticCache(config=self.model.config, max_cache_len=self.longest)
        else:
            self.cache.reset()

    def ask(self, forward, ids, positions):
        arguments = {"input_ids": ids, "position_ids": positions, self.cache_name: self.cache, "use_cache": True,
                     "logits_to_keep": 1}
        if self.wants_cache_position:
            arguments["cache_position"] = positions[0]
        return forward(**arguments).logits[:, -1].argmax(-1, keepdim=True)

    def eager_step(self):
        self.token.copy_(self.ask(self.forward, self.token, self.position))
        self.position.add_(1)

    def capture(self):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.eager_step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.eager_step()
        self.step = graph.replay

    def wait(self):
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()

    def prompt(self, tokens):
        """Seconds for a prompt of random tokens and the first token after it. Without graphs: a prompt is one call."""
        self.fresh()
        ids = torch.randint(self.model.config.vocab_size, (1, tokens), device=self.device)
        positions = torch.arange(tokens, device=self.device).unsqueeze(0)
        self.wait()
        began = time.perf_counter()
        self.ask(self.model, ids, positions)
        self.wait()
        return time.perf_counter() - began

    def generate(self, tokens):
        """Seconds for this many tokens, one after the other, from an empty context."""
        self.fresh()
        self.token.fill_(1)
        self.position.zero_()
        self.wait()
        began = time.perf_counter()
        for _ in range(tokens):
            self.step()
        self.wait()
        return time.perf_counter() - began


def main():
    described, device, threads, longest, mode = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    model = make_model(described["architecture"], make_config(described["architecture"], described["shape"]), device)
    runner = Runner(model, device, longest, mode)
    print(json.dumps({"ready": True, "torch": torch.__version__, "transformers": transformers.__version__,
                      "parameters": sum(p.numel() for p in model.parameters()),
                      "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu"}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        seconds = runner.prompt(request["prompt"]) if "prompt" in request else runner.generate(request["generate"])
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
