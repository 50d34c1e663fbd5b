"""A model of every format version still predicts what it did; what is newer, damaged or changed is refused by name."""

import json
import struct

import numpy as np
import pytest
import torch

from atomsets_core.models.classifier import AtomSetsClassifier
from atomsets_core.models.regressor import AtomSetsRegressor
from atomsets_core.models.saved_models import FORMAT_VERSION, read_arrays, read_config
from atomsets_core.models.trained import load_model
from atomsets_core.storage.store import StorageError, Store

NEW_FORMULAS = ["NaCl", "Fe2O3", "Fe0.62C0.000953Ni0.379047", "GaAs"]
KEPT = (
    "v1-first-day",
    "v1-regressor",
    *(f"v2-{name}" for name in ("regressor", "targets", "parents", "composition", "classifier", "classes")),
    *(f"v2-head-{name}" for name in ("ridge", "gaussian-process", "random-forest", "atomsets-gaussian-process")),
    *(f"v2-head-{name}-composition" for name in ("ridge", "random-forest")),
    *(f"v2-class-{name}" for name in ("atomsets", "mixture", "logistic-regression")),
    *(f"v2-class-{name}-composition" for name in ("logistic-regression", "random-forest")),
)
"""Written by scripts/build_saved_models.py of their time; never changed afterwards."""


@pytest.mark.parametrize("name", KEPT)
def test_a_model_of_every_version_predicts_what_it_did(name, data, elastic):
    folder = data / "models" / name
    try:
        model = load_model(Store(data / "models"), name)
        of_formulas = "-head-" in name or "-class-" in name or name.endswith(("composition", "classifier"))
        found = model.predict_distribution(NEW_FORMULAS if of_formulas else elastic.structures.take(np.arange(60, 80)))
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    expected = json.loads((folder / "expected.json").read_text())
    for field, values in expected.items():
        if field in ("label", "in_domain"):
            assert getattr(found, field).tolist() == values
        else:
            np.testing.assert_allclose(getattr(found, field), values, rtol=2e-3, atol=1e-5)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 100_000


def test_the_present_version_is_among_those_kept(data):
    kept = {path.name for path in (data / "models").iterdir()}
    assert set(KEPT) == kept
    assert any(name.startswith(f"v{FORMAT_VERSION}-") for name in kept)


@pytest.fixture
def saved(data, tmp_path):
    """A copy of a model that can be broken."""
    for path in (data / "models/v2-regressor").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return Store(tmp_path)


def load(store):
    return AtomSetsRegressor.load(store, ".")


def test_a_newer_format_is_refused_before_anything_else_is_read(saved):
    saved.write_json("model.json", {"format_version": FORMAT_VERSION + 1, "anything": "at all"})
    with pytest.raises(StorageError, match=f"model format {FORMAT_VERSION + 1} can't be read .* newer one"):
        load(saved)


def test_every_flipped_bit_is_noticed(saved):
    whole = saved.read("model.safetensors")
    random = np.random.default_rng(0)
    for position in [0, 3, 9, 40, *random.integers(0, len(whole), 40).tolist(), len(whole) - 1]:
        broken = bytearray(whole)
        broken[position] ^= 1 << int(random.integers(8))
        saved.write("model.safetensors", bytes(broken))
        with pytest.raises(StorageError, match="damaged"):
            load(saved)
    saved.write("model.safetensors", whole)
    assert load(saved).n_train_ == 60


def test_every_cut_is_noticed(saved):
    whole = saved.read("model.safetensors")
    for length in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        saved.write("model.safetensors", whole[:length])
        with pytest.raises(StorageError, match=f"{length} bytes instead of {len(whole)}"):
            load(saved)
    saved.write("model.safetensors", whole + b"\0")
    with pytest.raises(StorageError, match="bytes instead of"):
        load(saved)
    saved.remove("model.safetensors")
    with pytest.raises(StorageError, match=r"model\.safetensors does not exist"):
        load(saved)


def test_a_changed_json_is_noticed(saved):
    text = saved.read("model.json").decode()
    for old, new in (
        ('"quantile": ', '"quantile": 1'),
        ('"n_train": 60', '"n_train": 61'),
        ("V0+V1", "V1+V0"),
    ):
        assert old in text
        saved.write("model.json", text.replace(old, new, 1).encode())
        with pytest.raises(StorageError, match="its checksum is wrong"):
            load(saved)
    saved.write("model.json", text[: len(text) // 2].encode())
    with pytest.raises(StorageError, match="is damaged: not JSON"):
        load(saved)
    for nonsense in (b"[]", b"{}", b'{"format_version": "two"}'):
        saved.write("model.json", nonsense)
        with pytest.raises(StorageError, match="not a model's"):
            load(saved)


def version_1(data, tmp_path, change):
    """A copy of a model from before there were checksums, its JSON changed."""
    for path in (data / "models/v1-regressor").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    store = Store(tmp_path)
    config = store.read_json("model.json")
    change(config)
    store.write_json("model.json", config)
    return store


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["parameters"].update(phi=[10**9]),
        lambda config: config.update(site_width=10**12),
        lambda config: config["parameters"].update(members=5),
        lambda config: config["parameters"].update(pooling=["max", "min"]),
        lambda config: config["parameters"].update(no_such_parameter=1),
        lambda config: config.pop("domain"),
    ],
)
def test_options_that_do_not_fit_the_arrays_are_refused_without_allocating(data, tmp_path, change):
    store = version_1(data, tmp_path, change)
    with pytest.raises(StorageError, match="the model is damaged"):
        load(store)


def announced(header: dict, data: bytes = b"1234") -> bytes:
    """A safetensors file that says this of what follows."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def array(shape: list[int], start: int, stop: int, kind: str = "F32") -> dict:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, stop]}


GOOD = announced({"a": array([1], 0, 4)})
DAMAGED = {
    "empty": b"",
    "less than a length": GOOD[:7],
    "header cut off": GOOD[:20],
    "header of an exabyte": struct.pack("<Q", 1 << 60) + b"{}",
    "header larger than allowed": struct.pack("<Q", 100_000_001) + b"{}",
    "header that is no JSON": struct.pack("<Q", 2) + b"{x",
    "header nested without end": struct.pack("<Q", 100_000) + b"[" * 100_000,
    "data cut off": GOOD[:-1],
    "data too long": GOOD + b"\0",
    "shape too large": announced({"a": array([1 << 40], 0, 4)}),
    "shape beyond all numbers": announced({"a": array([1 << 40, 1 << 40], 0, 4)}),
    "negative shape": announced({"a": array([-1], 0, 4)}),
    "empty but huge": announced({"a": array([0, 1 << 62, 1 << 62], 0, 0)}, b""),
    "offset too large": announced({"a": array([1], 0, 1 << 50)}),
    "negative offset": announced({"a": array([1], -4, 0)}),
    "end before start": announced({"a": array([1], 4, 0)}),
    "arrays on each other": announced({"a": array([2], 0, 8), "b": array([2], 4, 12)}, bytes(12)),
    "the same bytes twice": announced({"a": array([1], 0, 4), "b": array([1], 0, 4)}),
    "a hole": announced({"a": array([1], 0, 4), "b": array([1], 8, 12)}, bytes(12)),
    "a hole before all": announced({"a": array([1], 4, 8)}, bytes(8)),
    "unknown numbers": announced({"a": array([1], 0, 4, "Q32")}),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_arrays_that_are_not_what_the_file_announces_are_refused(data, tmp_path, content):
    assert read_arrays(GOOD, "here")["a"].shape == (1,)
    store = version_1(data, tmp_path, lambda config: config)
    store.write("model.safetensors", content)
    with pytest.raises(StorageError, match=r"the model is damaged: model\.safetensors can't be read"):
        load(store)


def test_arrays_that_lie_about_their_size_are_refused(data, tmp_path):
    store = version_1(data, tmp_path, lambda config: config)
    whole = store.read("model.safetensors")
    (length,) = struct.unpack("<Q", whole[:8])
    header = json.loads(whole[8 : 8 + length])
    name = next(name for name in header if name.startswith("network.out.weight"))
    header[name]["shape"][0] *= 1000
    store.write("model.safetensors", announced(header, whole[8 + length :]))
    with pytest.raises(StorageError, match=r"model\.safetensors can't be read .*invalid shape"):
        load(store)


def test_a_number_that_is_none_is_refused(data, tmp_path):
    import safetensors.torch

    store = version_1(data, tmp_path, lambda config: config)
    arrays = safetensors.torch.load(store.read("model.safetensors"))
    arrays["network.out.bias"][0] = float("nan")
    store.write("model.safetensors", safetensors.torch.save(arrays))
    with pytest.raises(StorageError, match=r"out\.bias holds something that is not a number"):
        load(store)


def test_a_pickle_is_never_opened(saved, tmp_path):
    class Harmful:
        def __reduce__(self):
            return (print, ("opened",))

    torch.save({"model": Harmful()}, tmp_path / "model.safetensors")
    with pytest.raises(StorageError, match="damaged"):
        load(saved)


def test_a_model_of_another_kind_is_named(saved, data):
    with pytest.raises(StorageError, match="a model of the kind 'AtomSetsRegressor', not AtomSetsClassifier"):
        AtomSetsClassifier.load(saved, ".")
    assert type(load_model(Store(data / "models"), "v2-classifier")) is AtomSetsClassifier


def test_what_was_saved_is_there_again(data):
    store = Store(data / "models")
    config = read_config(store, "v2-parents")
    model = load_model(store, "v2-parents")
    assert str(model.spec_) == "megnet:V0+each(f1)+mean(V1),chgnet:a0"
    assert model.parents_ == config["parents"]
    assert set(model.parents_) == {"megnet", "chgnet"}
    assert config["about"] == {"target": "K_VRH", "unit": "GPa"}
    assert load_model(store, "v2-composition").weighted_
    targets = load_model(store, "v2-targets")
    assert targets.n_targets_ == len(targets.calibrators_) == len(targets.coverage_) == 2
    classes = load_model(store, "v2-classes")
    assert classes.classes_.tolist() == [0, 1, 2]
    assert set(classes.scores_) == {"accuracy", "roc_auc", "log_loss", "calibration_error"}
