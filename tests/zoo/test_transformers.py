"""Can small networks of transformers, without pretrained weights, be searched and loaded?"""

import lightning as L
import pytest
import pytorch_lightning as pl
import torch
from packages import check_study
from torch.utils.data import DataLoader

from lightning_tricks import ModuleTricks, Task

transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.zoo, pytest.mark.filterwarnings("ignore::FutureWarning:transformers.*")]

TOKENS, LENGTH = 32, 8


def sequences(count, seed):
    """Return sequences of tokens; each token is the one before plus one."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(2, TOKENS, (count, 1), generator=generator)
    return 2 + (first + torch.arange(LENGTH)) % (TOKENS - 2)


def classified(count, seed):
    return [
        {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": (ids[0] > 16).long()}
        for ids in sequences(count, seed)
    ]


def continued(count, seed):
    return [{"input_ids": ids, "labels": ids} for ids in sequences(count, seed)]


def translated(count, seed):
    return [{"input_ids": ids, "labels": ids.flip(0)} for ids in sequences(count, seed)]


def loaders(samples):
    return DataLoader(samples(32, 0), 8, shuffle=True), DataLoader(samples(16, 1), 8)


class Classifier(L.LightningModule):
    """A classifier of sequences, with the schedule of transformers."""

    def __init__(self):
        super().__init__()
        config = transformers.BertConfig(
            vocab_size=TOKENS,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=LENGTH,
            num_labels=2,
        )
        self.bert = transformers.BertForSequenceClassification(config)

    def forward(self, **batch):
        return self.bert(**batch)

    def training_step(self, batch, batch_idx):
        loss = self(**batch).loss
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        output = self(**batch)
        self.log("val_loss", output.loss, prog_bar=True)
        self.log("val_acc", (output.logits.argmax(-1) == batch["labels"]).float().mean())

    def configure_optimizers(self):
        decay = [p for n, p in self.named_parameters() if p.ndim > 1]
        rest = [p for n, p in self.named_parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW([{"params": decay}, {"params": rest, "weight_decay": 0.0}], 1e-3)
        steps = self.trainer.estimated_stepping_batches
        schedule = transformers.get_linear_schedule_with_warmup(optimizer, 1, steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


class Language(pl.LightningModule):
    """A network that computes its own loss for a batch with labels."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def training_step(self, batch, batch_idx):
        return self.network(**batch).loss

    def validation_step(self, batch, batch_idx):
        loss = self.network(**batch).loss
        self.log("val_loss", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.AdamW(filter(lambda p: p.requires_grad, self.parameters()), 1e-4)


def gpt2():
    config = transformers.GPT2Config(
        vocab_size=TOKENS,
        n_positions=LENGTH,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=0,
    )
    return transformers.GPT2LMHeadModel(config)


def t5():
    config = transformers.T5Config(
        vocab_size=TOKENS,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return transformers.T5ForConditionalGeneration(config)


def llama():
    config = transformers.LlamaConfig(
        vocab_size=TOKENS,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=LENGTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=0,
    )
    return transformers.LlamaForCausalLM(config)


def adapted():
    """Return a Llama of which only an adapter is trained."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.1, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
    return peft.get_peft_model(llama(), config)


def task(name, make, samples):
    return Task(
        name,
        loaders(samples),
        backbone=lambda tricks: make(),
        tricks=ModuleTricks,
        epochs=2,
        monitor="val_loss",
        mode="min",
    )


def batch_of(samples):
    return next(iter(DataLoader(samples(4, 2), 4)))


def test_bert_classifies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    batch = batch_of(classified)
    check_study(task("bert", Classifier, classified), Classifier, lambda m: m(**batch).logits, tmp_path)


@pytest.mark.parametrize(
    ("network", "samples"),
    [(gpt2, continued), (t5, translated), (llama, continued), (adapted, continued)],
)
def test_a_language_model_learns(network, samples, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    batch = batch_of(samples)

    def make():
        return Language(network())

    check_study(
        task(network.__name__, make, samples), make, lambda m: m.network(**batch).logits, tmp_path
    )
