"""Trains the tokenizers in `tokenizers/` with NeMo's own function, and says what sentencepiece
reads from them.

    python make_tokenizers.py       (with the Python environment of NeMo, see docs/fixtures.md)

Each gets a folder with tokenizer.model and tokenizer.vocab, written by sentencepiece, vocab.txt,
written by NeMo, and pieces.json, what sentencepiece says of every piece. Models have no
normalisation table, which would be a hundred times their size.
"""

import json
import os
import pathlib
import shutil
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[3] / "xtask/python"))

import nemo_stubs  # noqa: E402, F401  (before NeMo)
import sentencepiece  # noqa: E402
from nemo.collections.common.tokenizers.sentencepiece_tokenizer import create_spt_model  # noqa: E402

TEXT = ["other words make other pieces", "a tokenizer of the same size", "and one that is larger",
        "vier fünf sechs sieben", "zeven acht negen tien", "quite a few xylophones jazz"]  # fmt: skip

TOKENIZERS = {
    # As many pieces as the fixtures `nemo/ctc_bpe.nemo` and `nemo/rnnt_bpe.nemo` have.
    "same_size": {"vocab_size": 40, "sample_size": -1, "do_lower_case": False, "tokenizer_type": "bpe"},
    "larger": {"vocab_size": 52, "sample_size": -1, "do_lower_case": False, "tokenizer_type": "bpe"},
    "unigram": {
        "vocab_size": 320, "sample_size": -1, "do_lower_case": False, "tokenizer_type": "unigram",
        "bos": True, "eos": True, "pad": True, "byte_fallback": True,
        "control_symbols": ["<en>", "<de>"], "user_defined_symbols": ["▁zwei", "[LAUGH]"],
    },
}  # fmt: skip

train = sentencepiece.SentencePieceTrainer.Train


def train_small(arguments):
    train(f"{arguments} --normalization_rule_name=identity --num_threads=1 --minloglevel=2")


sentencepiece.SentencePieceTrainer.Train = train_small


def kind(model, i):
    kinds = [("unknown", model.is_unknown), ("control", model.is_control), ("byte", model.is_byte)]
    found = [name for name, test in kinds if test(i)]
    return found[0] if found else "other"


for name, options in TOKENIZERS.items():
    folder = HERE / "tokenizers" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # models hold the paths that they were trained with
        pathlib.Path("text.txt").write_text("\n".join(TEXT) + "\n")
        create_spt_model("text.txt", output_dir="out", **options)
        for file in ("tokenizer.model", "tokenizer.vocab", "vocab.txt"):
            shutil.copy(f"out/{file}", folder / file)
        os.chdir(HERE)
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    pieces = [
        {"text": model.id_to_piece(i), "score": model.get_score(i), "kind": kind(model, i)}
        for i in range(model.get_piece_size())
    ]
    lines = ",\n".join(json.dumps(piece, ensure_ascii=False) for piece in pieces)
    (folder / "pieces.json").write_text(f"[\n{lines}\n]\n")
    print(name, len(pieces))
