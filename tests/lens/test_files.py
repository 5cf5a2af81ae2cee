"""Lenses are kept, and those of the tuned-lens package are read without running their code."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from interp.engine.replay import replay_of
from interp.errors import FileFormatError, LensError
from interp.lens.lens import logit_lens
from interp.lens.lens_file import load_lens, save_lens
from interp.lens.published import load_published, published_hash
from interp.models import Model
from tests.families import tiny, tiny_tokenizer
from tests.lens.test_lens import in_double, random_lens


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(tiny("gpt2"), tiny_tokenizer(), id="tiny")


def publish(folder: Path, model: Model, state: object = None, **changes: object) -> Path:
    """What `TunedLens.save` of the tuned-lens package writes."""
    folder.mkdir(exist_ok=True)
    config = {
        "base_model_name_or_path": "tiny",
        "d_model": 32,
        "num_hidden_layers": 2,
        "bias": True,
        "base_model_revision": None,
        "unembed_hash": published_hash(model),
        "lens_type": "linear_tuned_lens",
    }
    (folder / "config.json").write_text(json.dumps(config | changes))
    torch.save(translators() if state is None else state, folder / "params.pt")
    return folder


def translators() -> dict[str, torch.Tensor]:
    """The state of a ModuleList of linear maps, one a layer."""
    random = torch.Generator().manual_seed(0)
    maps = torch.nn.ModuleList([torch.nn.Linear(32, 32) for _ in range(2)])
    return {
        name: torch.randn(parameter.shape, generator=random)
        for name, parameter in maps.state_dict().items()
    }


def test_a_lens_is_kept(tmp_path: Path):
    lens = random_lens(in_double("llama"))
    back = load_lens(save_lens(lens, tmp_path / "new" / "lens.safetensors"))
    assert (back.kind, back.provenance) == (lens.kind, lens.provenance)
    assert torch.equal(back.weight, lens.weight)
    assert torch.equal(back.bias, lens.bias)
    back.require(in_double("llama"))
    with pytest.raises(LensError, match="no translators to keep"):
        save_lens(logit_lens(in_double("llama")), tmp_path / "none.safetensors")


def test_files_that_hold_no_lens_are_refused(tmp_path: Path):
    path = tmp_path / "lens.safetensors"
    save_file({"weight": torch.zeros(1)}, path, {"format": "interp.Vector", "version": "1"})
    with pytest.raises(FileFormatError, match="does not hold a Lens of version 1"):
        load_lens(path)
    told = {"format": "interp.Lens", "version": "1"}
    full = {"lens": json.dumps({"kind": "tuned", "provenance": {}})}
    odd = {"weight": torch.zeros(2, 3, 4), "bias": torch.zeros(2, 3)}
    for tensors, more in (({"weight": torch.zeros(1)}, full), (odd, full), (odd, {})):
        save_file(tensors, path, told | more)
        with pytest.raises(FileFormatError, match="is damaged"):
            load_lens(path)
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_lens(path)
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_lens(tmp_path / "nowhere.safetensors")


def test_a_published_translator_reads_what_enters_its_block(model: Model, tmp_path: Path):
    lens = load_published(publish(tmp_path / "lens", model), model)
    lens.require(model)
    state, tokens = translators(), torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        hidden = model.hf(tokens, output_hidden_states=True).hidden_states
        for layer in (0, 1):
            moved = hidden[layer] + torch.nn.functional.linear(
                hidden[layer], state[f"{layer}.weight"], state[f"{layer}.bias"]
            )
            wanted = model.hf.lm_head(model.hf.transformer.ln_f(moved))[0]
            torch.testing.assert_close(lens.logits(model, hidden[layer][0], layer), wanted)
        last = replay_of(model).clean(tokens).stream[-1][0]  # is not translated
        torch.testing.assert_close(lens.logits(model, last, 2), model.logits(tokens)[0])
    assert lens.provenance["config"]["base_model_name_or_path"] == "tiny"


def test_a_published_lens_may_have_no_biases_and_half_precision(model: Model, tmp_path: Path):
    state = {name: t.half() for name, t in translators().items() if name.endswith("weight")}
    lens = load_published(publish(tmp_path / "lens", model, state, bias=False), model)
    assert lens.bias.abs().max() == 0
    assert torch.equal(lens.weight[1], state["1.weight"].float())


def test_a_published_lens_of_another_model_is_refused(model: Model, tmp_path: Path):
    folder = publish(tmp_path / "lens", model)
    other = Model(tiny("gpt2", seed=1), tiny_tokenizer(), id="other")
    with pytest.raises(LensError, match=r"another hash than that of other; .*check_hash=False"):
        load_published(folder, other)
    load_published(folder, other, check_hash=False).require(other)
    with pytest.raises(LensError, match="3 layers of width 32, and tiny has 2 of 32"):
        load_published(publish(folder, model, num_hidden_layers=3), model)


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return Path.touch, (Path("harm"),)


def test_code_in_a_published_file_is_not_run(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    folder = publish(tmp_path / "lens", model, translators() | {"0.weight": Harm()})
    with pytest.raises(FileFormatError, match="holds more than tensors"):
        load_published(folder, model)
    (folder / "params.pt").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(FileFormatError, match="not whole"):
        load_published(folder, model)
    assert not Path("harm").exists()


def test_published_files_that_are_broken_are_refused(model: Model, tmp_path: Path):
    state = translators()
    for broken, message in [
        ({**state, "2.weight": state["0.weight"]}, "does not hold the translators of 2 layers"),
        ({**state, "0.bias": torch.zeros(5)}, r"0.bias is \(5,\) and not numbers of shape \(32,\)"),
        ({**state, "0.bias": torch.zeros(32, dtype=torch.long)}, "not numbers"),
        ({**state, "0.bias": 3.0}, "0.bias is 3.0"),
        ({**state, "0.bias": torch.full((32,), torch.inf)}, "not finite"),
        ([1], "does not hold the translators"),
        ({**state, "0.bias": torch.zeros(2**19)}, "holds .* bytes"),
    ]:
        with pytest.raises(FileFormatError, match=message):
            load_published(publish(tmp_path / "lens", model, broken), model)
    folder = publish(tmp_path / "lens", model, lens_type="conv")
    with pytest.raises(FileFormatError, match="of a 'conv'"):
        load_published(folder, model)
    for text, message in {"{": "not whole JSON", "[]": "does not name"}.items():
        (folder / "config.json").write_text(text)
        with pytest.raises(FileFormatError, match=message):
            load_published(folder, model)
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_published(tmp_path / "nowhere", model)
    with zipfile.ZipFile(publish(folder, model) / "params.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"junk")
    with pytest.raises(FileFormatError, match="not whole"):
        load_published(folder, model)
