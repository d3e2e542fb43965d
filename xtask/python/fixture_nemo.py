"""Tiny NeMo models with patterned weights."""

import os
import pathlib
import random
import tempfile
import uuid

import nemo_stubs  # noqa: F401  (before NeMo)
import sentencepiece
import torch
from nemo.collections.asr.models import (
    EncDecCTCModel,
    EncDecCTCModelBPE,
    EncDecHybridRNNTCTCBPEModel,
    EncDecRNNTBPEModel,
)
from nemo.core.classes import ModelPT
from nemo.utils import logging
from omegaconf import OmegaConf

from fixture import fill

logging.setLevel(logging.ERROR)

TEXT = ["the quick brown fox jumps over the lazy dog", "speech to text with a tiny model",
        "alpha beta gamma delta", "one two three four five six seven"]  # fmt: skip

PREPROCESSOR = {
    "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
    "sample_rate": 16000, "normalize": "per_feature", "window_size": 0.025, "window_stride": 0.01,
    "window": "hann", "features": 16, "n_fft": 512, "dither": 1.0e-05, "pad_to": 0,
}  # fmt: skip

ENCODER = {
    "_target_": "nemo.collections.asr.modules.ConformerEncoder",
    "feat_in": 16, "feat_out": -1, "n_layers": 1, "d_model": 8, "subsampling": "dw_striding",
    "subsampling_factor": 4, "subsampling_conv_channels": 4, "ff_expansion_factor": 2,
    "self_attention_model": "rel_pos", "n_heads": 2, "att_context_size": [-1, -1],
    "xscaling": False, "untie_biases": True, "pos_emb_max_len": 50, "conv_kernel_size": 5,
    "conv_norm_type": "batch_norm", "dropout": 0.1, "dropout_emb": 0.0, "dropout_att": 0.1,
}  # fmt: skip

DECODER = {"_target_": "nemo.collections.asr.modules.ConvASRDecoder", "feat_in": 8}

BASE = {"sample_rate": 16000, "preprocessor": PREPROCESSOR, "encoder": ENCODER,
        "optim": {"name": "adamw", "lr": 0.001}}  # fmt: skip


class Work:
    """A scratch folder as working directory, and UUIDs that repeat: NeMo names artifacts by them."""

    def __enter__(self):
        self.before, self.uuid4 = os.getcwd(), uuid.uuid4
        self.folder = tempfile.TemporaryDirectory()
        os.chdir(self.folder.name)
        source = random.Random(0)
        uuid.uuid4 = lambda: uuid.UUID(int=source.getrandbits(128), version=4)
        return self

    def __exit__(self, *_):
        os.chdir(self.before)
        uuid.uuid4 = self.uuid4
        self.folder.cleanup()


def tokenizer():
    """Trains a sentencepiece model in `tokdir`, under relative names."""
    pathlib.Path("tokdir").mkdir()
    pathlib.Path("text.txt").write_text("\n".join(TEXT))
    sentencepiece.SentencePieceTrainer.train(
        input="text.txt", model_prefix="tokdir/tokenizer", vocab_size=40, model_type="bpe",
        hard_vocab_limit=False, bos_id=-1, eos_id=-1, num_threads=1, minloglevel=2,
        normalization_rule_name="identity",
    )  # fmt: skip
    model = sentencepiece.SentencePieceProcessor(model_file="tokdir/tokenizer.model")
    pieces = [model.id_to_piece(i) for i in range(model.get_piece_size())]
    words = [p.removeprefix("▁") or p if p.startswith("▁") else f"##{p}" for p in pieces[1:]]
    pathlib.Path("tokdir/vocab.txt").write_text("\n".join(words) + "\n")
    return {"dir": "tokdir", "type": "bpe"}


def finished(model):
    fill(model.state_dict(keep_vars=True).values())
    return model


def ctc_char():
    labels = [" ", "a", "b", "c", "n", "y", "'", "é"]
    decoder = {**DECODER, "num_classes": len(labels), "vocabulary": labels}
    config = {**BASE, "labels": labels, "decoder": decoder, "train_ds": None, "validation_ds": None}
    return finished(EncDecCTCModel(OmegaConf.create(config)))


def ctc_bpe():
    decoder = {**DECODER, "num_classes": -1, "vocabulary": []}
    config = {**BASE, "tokenizer": tokenizer(), "decoder": decoder}
    return finished(EncDecCTCModelBPE(OmegaConf.create(config)))


def rnnt_bpe():
    config = {
        **BASE,
        "tokenizer": tokenizer(),
        "model_defaults": {"enc_hidden": 8, "pred_hidden": 6, "joint_hidden": 6},
        "decoder": {
            "_target_": "nemo.collections.asr.modules.RNNTDecoder",
            "normalization_mode": None, "random_state_sampling": False, "blank_as_pad": True,
            "prednet": {"pred_hidden": 6, "pred_rnn_layers": 1, "t_max": None, "dropout": 0.0},
        },
        "joint": {
            "_target_": "nemo.collections.asr.modules.RNNTJoint",
            "log_softmax": None, "preserve_memory": False, "fuse_loss_wer": False,
            "fused_batch_size": 4,
            "jointnet": {"joint_hidden": 6, "activation": "relu", "dropout": 0.0},
        },
        "decoding": {"strategy": "greedy", "greedy": {"max_symbols": 10}},
        "loss": {"loss_name": "pytorch"},
    }  # fmt: skip
    return finished(EncDecRNNTBPEModel(OmegaConf.create(config)))


def hybrid_tdt():
    """A transducer that says durations too, with a CTC decoder beside it."""
    durations = [0, 1, 2]
    config = {
        **BASE,
        "tokenizer": tokenizer(),
        "model_defaults": {"enc_hidden": 8, "pred_hidden": 6, "joint_hidden": 6,
                           "tdt_durations": durations, "num_tdt_durations": len(durations)},
        "decoder": {
            "_target_": "nemo.collections.asr.modules.RNNTDecoder",
            "normalization_mode": None, "random_state_sampling": False, "blank_as_pad": True,
            "prednet": {"pred_hidden": 6, "pred_rnn_layers": 1, "t_max": None, "dropout": 0.0},
        },
        "joint": {
            "_target_": "nemo.collections.asr.modules.RNNTJoint",
            "log_softmax": None, "preserve_memory": False, "fuse_loss_wer": False,
            "fused_batch_size": 4, "num_extra_outputs": "${model_defaults.num_tdt_durations}",
            "jointnet": {"joint_hidden": 6, "activation": "relu", "dropout": 0.0},
        },
        "decoding": {"strategy": "greedy", "model_type": "tdt", "greedy": {"max_symbols": 10},
                     "durations": "${model_defaults.tdt_durations}"},
        "loss": {"loss_name": "tdt_pytorch",
                 "tdt_pytorch_kwargs": {"durations": "${model_defaults.tdt_durations}"}},
        "aux_ctc": {"ctc_loss_weight": 0.3, "decoder": {**DECODER, "num_classes": -1, "vocabulary": []}},
    }  # fmt: skip
    return finished(EncDecHybridRNNTCTCBPEModel(OmegaConf.create(config)))


class Parent(ModelPT):
    """Holds a whole ASR model, artifacts of its own, tied weights and an integer."""

    def __init__(self, cfg, trainer=None):
        super().__init__(cfg=cfg, trainer=trainer)
        self.register_nemo_submodule(
            name="asr", config_field="asr_cfg", model=EncDecCTCModelBPE(cfg.asr_cfg)
        )
        self.register_artifact("labels_file", cfg.labels_file)
        self.register_artifact("extra.words_file", cfg.extra.words_file)
        self.first = torch.nn.Linear(3, 4, bias=False)
        self.second = torch.nn.Linear(3, 4, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("count", torch.tensor(7))

    def setup_training_data(self, *_):
        pass

    setup_validation_data = setup_training_data

    @classmethod
    def list_available_models(cls):
        return []


def nested():
    pathlib.Path("labels.txt").write_text("a\nb\nc\n")
    pathlib.Path("words.txt").write_text("x\n")
    decoder = {**DECODER, "num_classes": -1, "vocabulary": []}
    config = {
        "labels_file": "labels.txt",
        "missing_file": None,
        "extra": {"words_file": "words.txt"},
        "asr_cfg": {**BASE, "tokenizer": tokenizer(), "decoder": decoder},
    }
    return finished(Parent(OmegaConf.create(config)))
