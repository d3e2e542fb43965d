"""Tiny SpeechLM2 models and runs of training that save distributed checkpoints."""

import copy
import json

import nemo_stubs
import torch

nemo_stubs.STUBS["nemo.collections.tts"] = "speechlm2 imports its audio codec, which SALM has not"
nemo_stubs.without_init("nemo.collections", "speechlm2", "speechlm2.models", "speechlm2.data")

import fixture_nemo  # noqa: E402
import lightning.pytorch as pl  # noqa: E402
from lightning.pytorch.strategies import ModelParallelStrategy  # noqa: E402
from nemo.collections.asr.models import EncDecCTCModel  # noqa: E402
from nemo.collections.speechlm2.models.salm import SALM  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "transcribe", "this", "a", "little", "sound", "says", "no", "yes"]
AUDIO = "<|audio|>"


def language_model(folder, tied):
    """A Llama of two layers and a tokenizer of a dozen words."""
    config = LlamaConfig(
        vocab_size=16, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=tied,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(1)
    LlamaForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
    ).save_pretrained(folder)  # fmt: skip
    return folder


def asr_model(path):
    """A CTC model with weights that give finite outputs, unlike those of the fixtures."""
    torch.manual_seed(3)
    labels = [" ", "a", "b"]
    decoder = {**fixture_nemo.DECODER, "num_classes": len(labels), "vocabulary": labels}
    EncDecCTCModel(OmegaConf.create({**fixture_nemo.BASE, "labels": labels, "decoder": decoder})).save_to(str(path))
    return path


def config(llm, asr, **changes):
    """The section `model` of an experiment, which is a model's one argument."""
    out = {
        "pretrained_llm": str(llm),
        "pretrained_asr": str(asr),
        "pretrained_weights": True,
        "audio_locator_tag": AUDIO,
        "prompt_format": "llama2",
        "freeze_params": [],
        "prevent_freeze_params": [],
        "perception": {
            "target": "nemo.collections.speechlm2.modules.perception.AudioPerceptionModule",
            "modality_adapter": {
                "_target_": "nemo.collections.speechlm2.modules.perception.IdentityConnector",
                "d_model": 8,
            },
            "encoder": {"dropout": 0.0, "dropout_att": None},
            "output_dim": 99,  # NeMo puts the size of the language model here
        },
        "optimizer": {"_target_": "torch.optim.AdamW", "lr": 0.01, "betas": [0.9, 0.98]},
    }
    return out | changes


def whole_perception():
    """A perception section that needs no pretrained archive."""
    sections = {"preprocessor": fixture_nemo.PREPROCESSOR, "encoder": fixture_nemo.ENCODER, "output_dim": 16}
    return config("", "")["perception"] | sections


def batch():
    """Two sounds in two sentences."""
    audios = torch.stack([torch.sin(torch.arange(8000) / rate) for rate in (25.0, 40.0)])
    tag = len(WORDS)
    ids = torch.tensor([[1, 4, 5, tag, 9, 10, 2], [1, 4, 6, tag, 9, 11, 2]])
    mask = torch.zeros_like(ids, dtype=torch.bool)
    mask[:, 4:] = True
    return {"audios": audios, "audio_lens": torch.tensor([8000, 6400]), "input_ids": ids, "loss_mask": mask}


@torch.no_grad()
def outputs(model):
    """What a model makes of them: logits, and an answer."""
    model = model.eval()
    dtype = next(model.parameters()).dtype
    sounds = {key: value.to(dtype) if value.is_floating_point() else value for key, value in batch().items()}
    inputs = model.prepare_inputs(sounds)
    logits = model(inputs["input_embeds"], attention_mask=inputs["attention_mask"])["logits"]
    return [inputs["input_embeds"], logits]


class Batches(pl.LightningDataModule):
    def train_dataloader(self):
        return torch.utils.data.DataLoader([batch()] * 4, batch_size=None)


def train(rank, runs):
    """Each of `runs`, (config, path of the checkpoint), for two steps. A rank of the group."""
    world = torch.distributed.get_world_size()
    for cfg, path in runs:
        torch.manual_seed(2)
        trainer = pl.Trainer(
            accelerator="cpu", devices=world, max_steps=2, logger=False, enable_progress_bar=False,
            strategy=ModelParallelStrategy(data_parallel_size=world, tensor_parallel_size=1),
            enable_model_summary=False, enable_checkpointing=False, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(SALM(copy.deepcopy(cfg)), datamodule=Batches())
        trainer.save_checkpoint(path)


def exported(cfg, checkpoint, folder, dtype=None):
    """The directory that NeMo's own export writes: the model is built, its weights are loaded from
    the distributed checkpoint, and it is saved. Gives the model."""
    from nemo.collections.speechlm2.parts.pretrained import init_from_training_checkpoint

    cfg = copy.deepcopy(cfg)
    if dtype is not None:
        cfg["torch_dtype"] = str(dtype).removeprefix("torch.")
    model = SALM(cfg)
    init_from_training_checkpoint(model, str(checkpoint))
    if dtype is not None:
        model = model.to(dtype)
    model.save_pretrained(folder)
    return model


def config_of(folder):
    return json.loads((folder / "config.json").read_text())
