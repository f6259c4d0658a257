"""The arithmetic of tools/compare-truth: the fp32 reference, and how far an engine's logits are from it. Needs numpy."""
import importlib.machinery
import importlib.util
import json
import pathlib
import sys

import numpy as np

TOOLS = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = TOOLS.parent / "tests/golden"
CHUNK, RANDOM_SEQUENCES, RANDOM_TOKENS = 512, 4, 128


def _reference_module():
    """tools/make-reference-logits as a module."""
    sys.path.insert(0, str(TOOLS))
    loader = importlib.machinery.SourceFileLoader("reference_logits", str(TOOLS / "make-reference-logits"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


_REFERENCE = _reference_module()


def reference(path):
    """The numpy model whose logits(ids) are the truth about a file of F32 weights."""
    return _REFERENCE.Llama(_REFERENCE.GgufFile(path), np.float32)


def random_sequences(vocabulary):
    random = np.random.default_rng(7)
    return [("random", random.integers(0, vocabulary, RANDOM_TOKENS).tolist()) for _ in range(RANDOM_SEQUENCES)]


def golden_sequences(path, prompts, chunks):
    """[(kind, ids)]: 'kl' for the first so many committed prompts (None: all), 'text' for so many chunks of the text."""
    golden = json.loads((GOLDEN / "logits/smollm2-135m.json").read_text())
    sequences = [("kl", prompt["tokens"]) for prompt in golden["prompts"][:prompts]]
    if chunks:
        oracle = _REFERENCE.bpe_oracle(_REFERENCE.GgufFile(path).metadata, special=False)
        ids = oracle.encode((GOLDEN / "text/opticks.txt").read_text(), add_special_tokens=False).ids
        whole = [ids[at : at + CHUNK] for at in range(0, len(ids) - CHUNK + 1, CHUNK)]
        sequences += [("text", chunk) for chunk in whole[:chunks]]
    return sequences


def log_softmax(logits):
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    wide -= np.log(np.exp(wide).sum(axis=-1, keepdims=True))
    return wide


class Distance:
    """What sets one engine's logits apart from the reference's, summed over sequences."""

    def __init__(self):
        self.kl, self.positions, self.flips, self.widest_flip, self.nll, self.scored, self.worst = 0.0, 0, 0, 0.0, 0.0, 0, 0.0

    def add(self, kind, ids, reference, logits):
        """`reference`: the reference's log-probabilities; None when this is the reference."""
        own = log_softmax(logits)
        if kind == "text":
            rows = np.arange(len(ids) // 2, len(ids) - 1)
            self.nll -= float(own[rows, np.asarray(ids)[rows + 1]].sum())
            self.scored += len(rows)
        elif reference is not None:
            self.kl += float((np.exp(reference) * (reference - own)).sum())
            self.positions += len(ids)
            self.worst = max(self.worst, float(np.abs(reference - own).max()))
            top = reference.argmax(-1)
            changed = np.flatnonzero(top != own.argmax(-1))
            self.flips += len(changed)
            for row in changed:
                first, second = np.sort(reference[row])[-1:-3:-1]
                self.widest_flip = max(self.widest_flip, float(first - second))

    def summary(self):
        result = {"perplexity": float(np.exp(self.nll / self.scored)) if self.scored else None}
        if self.positions:
            result.update(kl=self.kl / self.positions, positions=self.positions, flips=self.flips, widest_flip=self.widest_flip,
                          worst_log_probability=self.worst)
        return result


def distances(model, sequences, logit_files):
    """{'reference': summary, name: summary of each of logit_files {name: path of f32 (tokens, vocab)}}."""
    files = {name: open(path, "rb") for name, path in logit_files.items()}
    found = {"reference": Distance(), **{name: Distance() for name in files}}
    for kind, ids in sequences:
        logits = model.logits(ids)
        # A random model's logits lie so far apart that one token would have all the probability: spread as a normal one's.
        unit = 1 / float(logits.std()) if kind == "random" else 1.0
        found["reference"].add(kind, ids, None, logits * unit)
        truth = log_softmax(logits * unit) if kind != "text" else None
        for name, file in files.items():
            rows = np.fromfile(file, dtype=np.float32, count=logits.size).reshape(logits.shape)
            found[name].add(kind, ids, truth, rows * unit)
    for file in files.values():
        file.close()
    return {name: distance.summary() for name, distance in found.items()}
