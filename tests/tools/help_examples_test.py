"""Every example of every command's help is one that works: quick ones are run, of the others all names are looked up.

usage: help_examples_test.py PATH_OF_TANDEM. The default model's file is taken from TANDEM_TEST_MODEL; examples that
need its vocabulary are only looked up when it is unset.
"""
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import unittest

TANDEM = sys.argv.pop(1)
MODEL = os.environ.get("TANDEM_TEST_MODEL", "")
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
TINY = "h=64,l=2,heads=4,kv=2,ffn=96,vocab=320,ctx=8192,type=q8_0"

# Not run: what serves until it is stopped, what needs GPUs, what measures for minutes.
NOT_RUN = [["serve"], ["rig", "test"], ["rig", "probe"], ["report"]]
# Run on a model without a vocabulary: what they measure takes long on a real one.
WITHOUT_TEXT = [["bench"], ["run"]]
NEEDS_TEXT = [["generate"], ["perplexity"], ["tokenize"], ["render"], ["models", "path"], ["models", "show"]]


def tandem(*args, **kwargs):
    return subprocess.run([TANDEM, *args], capture_output=True, text=True, timeout=120, **kwargs)


def commands(prefix=()):
    """Every command with its help."""
    text = tandem(*prefix, "--help").stdout
    yield list(prefix), text
    listed = text[text.find("SUBCOMMANDS"):] if "SUBCOMMANDS" in text else text[text.find("Subcommands"):] if "Subcommands" in text else ""
    for name in re.findall(r"^  ([a-z]+) ", listed, re.MULTILINE):
        yield from commands((*prefix, name))


def examples():
    seen = set()
    for _, text in commands():
        for line in text[:text.find("Usage:")].splitlines():
            line = line.split("   #")[0].strip()
            if (line.startswith("tandem ") or "| tandem " in line) and line not in seen:
                seen.add(line)
                yield line


def calls(line):
    """The arguments of each call of tandem in a shell line."""
    for part in re.split(r"&&|\|(?= tandem)", line):
        words = shlex.split(re.sub(r" [<>] \S+", "", part))
        if words and words[0] == "tandem":
            yield words[1:]


def starts_with_any(args, heads):
    return any(args[:len(head)] == head for head in heads)


class HelpExamples(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.cwd = pathlib.Path(cls.folder.name)
        for models in ["tiny", "real"]:
            (cls.cwd / models).mkdir()
        cls.synthesize(cls.cwd / "tiny" / "smollm2-135m.gguf")
        if MODEL:
            (cls.cwd / "real" / "smollm2-135m.gguf").symlink_to(pathlib.Path(MODEL).resolve())
        # Files that examples name.
        (cls.cwd / "scenarios").symlink_to(REPOSITORY / "scenarios")
        for name in ["book.txt", "prompt.txt"]:
            (cls.cwd / name).write_text("The link between two cards is what this is about. " * 120)
        (cls.cwd / "ids.txt").write_text(" ".join(str(i % 300) for i in range(1100)))
        (cls.cwd / "chat.json").write_text('[{"role": "user", "content": "Hi"}]')
        (cls.cwd / "llama-3.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
        for name in ["my.plan", "other.plan"]:
            shown = tandem("plan", "show", "--plugin", "layer_split", "--devices", "2", "--text", cwd=cls.cwd, env=cls.env(MODEL != ""))
            (cls.cwd / name).write_text(shown.stdout)
        (cls.cwd / "model.gguf").symlink_to(MODEL and pathlib.Path(MODEL).resolve() or cls.cwd / "tiny" / "smollm2-135m.gguf")
        assert tandem("models", "synthesize", TINY, "-o", str(cls.cwd / "model.parts.gguf"), "--split", "3").returncode == 0
        for i in range(1, 4):
            (cls.cwd / f"model.parts-0000{i}-of-00003.gguf").rename(cls.cwd / f"model-0000{i}-of-00003.gguf")

    @classmethod
    def synthesize(cls, path):
        done = tandem("models", "synthesize", TINY, "-o", str(path))
        assert done.returncode == 0, done.stderr

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    @classmethod
    def env(cls, real):
        return {**os.environ, "TANDEM_MODELS": str(cls.cwd / ("real" if real else "tiny")),
                "TANDEM_SCENARIOS": str(REPOSITORY / "scenarios")}

    def check_names(self, args):
        lookups = {"--rig": ["rig", "show"], "--plugin": ["plugins", "show"], "-m": ["models", "show"]}
        for flag, value in zip(args, args[1:]):
            if flag in lookups and value not in ["auto", "file", "model.gguf"]:
                done = tandem(*lookups[flag], value, env=self.env(MODEL != ""), cwd=self.cwd)
                self.assertEqual(done.returncode, 0, (flag, value, done.stderr))

    def test_all(self):
        lines = list(examples())
        self.assertGreater(len(lines), 30, lines)
        for line in lines:
            with self.subTest(line):
                for args in calls(line):
                    self.check_names(args)
                    if not starts_with_any(args, NOT_RUN):
                        self.run_example(line, args)

    def run_example(self, line, args):
        if starts_with_any(args, NEEDS_TEXT) and not MODEL and "synthetic" not in line:
            return
        if args == ["models", "inspect", "folder-with-config.json", "-c", "8192", "--json"]:
            return  # a safetensors folder: cli_models_test.py has them
        if args[0] == "run" and "--dry-run" not in args:
            args = [*args, "--dry-run"]
        command = shlex.join([TANDEM, *args])
        if args[0] in ["tokenize", "render"] and "|" in line:
            command = line.replace("tandem", shlex.quote(TANDEM))
        elif redirect := re.search(r"< \S+", line):
            command += " " + redirect.group()
        real = MODEL != "" and not starts_with_any(args, WITHOUT_TEXT) and "ids.txt" not in args
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, cwd=self.cwd, env=self.env(real))
        self.assertEqual(done.returncode, 0, (command, done.stderr))


if __name__ == "__main__":
    unittest.main(verbosity=1)
