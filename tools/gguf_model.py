"""Reads GGUF files for the tools that make golden files: metadata, weights as float32, tokenizer.

Nothing here is used by tandem itself; it is a second, independent reading of the format, so that
the golden files do not share tandem's mistakes. Needs numpy; the package `gguf` for weights of 5 bits
and of K types; `tokenizers` for bpe_oracle().
Format: the GGUF specification; quantised blocks: ggml's block_q4_0, block_q4_1, block_q8_0.

    model = GgufFile("model.gguf"); model.metadata["llama.block_count"]; model.weight("output_norm.weight")
"""

import struct

import numpy as np

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

# ggml tensor type -> (name, values a block, bytes a block)
_TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
          8: ("Q8_0", 32, 34), 30: ("BF16", 1, 2), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
          12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210)}


class GgufFile:
    def __init__(self, path):
        self.path = path
        self.metadata = {}
        self._tensors = {}
        with open(path, "rb") as file:
            self._read_header(file)
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r")

    def _read_header(self, file):
        def number(code):
            return struct.unpack("<" + code, file.read(struct.calcsize(code)))[0]

        def value(kind):
            if kind == _STRING:
                return file.read(number("Q")).decode("utf-8")
            if kind == _ARRAY:
                element, count = number("I"), number("Q")
                return [value(element) for _ in range(count)]
            return number(_SCALARS[kind])

        if file.read(4) != b"GGUF":
            raise ValueError(f"{self.path}: not a GGUF file")
        number("I")
        tensors, pairs = number("Q"), number("Q")
        for _ in range(pairs):
            key = value(_STRING)
            self.metadata[key] = value(number("I"))
        for _ in range(tensors):
            name = value(_STRING)
            shape = [number("Q") for _ in range(number("I"))]
            kind, offset = number("I"), number("Q")
            self._tensors[name] = (shape, kind, offset)
        alignment = self.metadata.get("general.alignment", 32)
        self._data_start = -(-file.tell() // alignment) * alignment

    def names(self):
        return list(self._tensors)

    def weight(self, name):
        """The tensor as float32, (rows, cols) or (cols,)."""
        shape, kind, offset = self._tensors[name]
        type_name, block_values, block_bytes = _TYPES[kind]
        count = int(np.prod(shape))
        start = self._data_start + offset
        raw = np.array(self._bytes[start : start + count // block_values * block_bytes])
        return dequantise(type_name, raw).reshape(shape[::-1])


def dequantise(type_name, raw):
    """Values of a run of bytes: w = d * q (Q8_0), d * (q - 8) (Q4_0), d * q + m (Q4_1), all in float32."""
    if type_name == "F32":
        return raw.view("<f4").astype(np.float32)
    if type_name == "F16":
        return raw.view("<f2").astype(np.float32)
    if type_name == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if type_name == "Q8_0":
        blocks = raw.reshape(-1, 34)
        return (_halves(blocks, 0) * blocks[:, 2:].view(np.int8).astype(np.float32)).reshape(-1)
    if type_name == "Q4_0":
        blocks = raw.reshape(-1, 18)
        return (_halves(blocks, 0) * (_nibbles(blocks[:, 2:]) - np.float32(8))).reshape(-1)
    if type_name == "Q4_1":
        blocks = raw.reshape(-1, 20)
        return (_halves(blocks, 0) * _nibbles(blocks[:, 4:]) + _halves(blocks, 2)).reshape(-1)
    import gguf

    return gguf.quants.dequantize(raw.reshape(1, -1), gguf.GGMLQuantizationType[type_name]).reshape(-1)


def _halves(blocks, at):
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(packed):
    """Low nibbles are the block's first 16 values, high nibbles the last 16."""
    return np.concatenate([packed & 15, packed >> 4], axis=1).astype(np.float32)


def bpe_oracle(metadata, special):
    """SmolLM2's tokenizer, built by the `tokenizers` package from a GGUF file's vocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    if metadata["tokenizer.ggml.pre"] != "smollm":
        raise ValueError("this oracle knows the pre-tokenizer 'smollm' only")
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    oracle = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
    # What SmolLM's own tokenizer.json says: single digits, then GPT-2's words.
    oracle.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    oracle.decoder = decoders.ByteLevel()
    if special:
        types = metadata["tokenizer.ggml.token_type"]
        oracle.add_special_tokens(
            [AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, types) if k == 3])
    return oracle
