"""Where the files of a hub repository are: in the local cache, else downloaded into it."""

from __future__ import annotations

import difflib
from fnmatch import fnmatch
from pathlib import Path

from interp.errors import InterpError, ModelError, UnknownModel, did_you_mean
from interp.models.embedded import embedded_names
from interp.models.files import TOKENIZER_FILES, check_weights, has_tokenizer

# For near matches of misspelt names only; any other repository loads as well.
WELL_KNOWN = (
    "gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "distilgpt2",
    "EleutherAI/gpt-neo-125m", "EleutherAI/gpt-j-6b", "EleutherAI/pythia-14m",
    "EleutherAI/pythia-70m", "EleutherAI/pythia-160m", "EleutherAI/pythia-410m",
    "EleutherAI/pythia-1b", "EleutherAI/pythia-1.4b", "EleutherAI/pythia-2.8b",
    "facebook/opt-125m", "bigscience/bloom-560m", "tiiuae/falcon-7b", "microsoft/phi-2",
    "meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.1-8B", "mistralai/Mistral-7B-v0.1",
    "Qwen/Qwen2.5-0.5B", "Qwen/Qwen3-0.6B", "google/gemma-2-2b", "google/gemma-3-1b-pt",
    "allenai/OLMo-2-0425-1B", "mistralai/Mixtral-8x7B-v0.1",
)  # fmt: skip

CONFIG_FILES = ("config.json", "*.py")
_ALWAYS = (*CONFIG_FILES, *TOKENIZER_FILES, "*.json", "merges.txt", "*.tiktoken", "*.jinja")


def cached(name: str, revision: str | None, *, tokenizer: bool) -> Path | None:
    """The snapshot of `name` in the local hub cache, or None if it is not there in whole."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        raise UnknownModel(
            f"{name!r} is neither an embedded model, nor a directory, nor a possible hub name "
            f"('owner/name'); {did_you_mean(name, embedded_names())}"
        ) from None
    if not isinstance(config, str):
        return None
    folder = Path(config).parent
    try:
        check_weights(folder)
    except InterpError:
        return None
    return folder if has_tokenizer(folder) or not tokenizer else None


def download(name: str, revision: str | None, *, config_only: bool = False) -> Path:
    """Download a repository into the hub cache, safetensors rather than other weights.

    Raises UnknownModel for a name or revision that the hub does not have, ModelError where it asks
    for a login or cannot be reached.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is httpx's
        GatedRepoError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        repository = HfApi().model_info(name, revision=revision, timeout=20)
        files = [sibling.rfilename for sibling in repository.siblings or ()]
        safe = any(fnmatch(file, "model*.safetensors") for file in files)
        weights = "model*.safetensors" if safe else "pytorch_model*.bin"
        wanted = CONFIG_FILES if config_only else (*_ALWAYS, weights)
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(wanted)))
    except GatedRepoError as error:
        raise ModelError(
            f"{name!r} asks for a licence or login on the hub; accept it at "
            f"https://huggingface.co/{name}, then run `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise _not_found(name) from error
    except RevisionNotFoundError as error:
        raise UnknownModel(
            f"{name!r} has no revision {revision!r} on the hub; see its branches and tags at "
            f"https://huggingface.co/{name}/tree/main."
        ) from error
    except (OSError, HTTPError) as error:  # no network, offline mode, a failing server or disk
        raise _unreachable(name) from error


def _not_found(name: str) -> UnknownModel:
    return UnknownModel(
        f"{name!r} is neither an embedded model, nor a directory, nor a public hub repository; "
        f"{did_you_mean(name, [*embedded_names(), *WELL_KNOWN])}"
    )


def _unreachable(name: str) -> ModelError:
    known = [*embedded_names(), *WELL_KNOWN]
    if name not in known and difflib.get_close_matches(name, known):
        return _not_found(name)  # a misspelt name is likelier than a missing download
    return ModelError(
        f"{name!r} is not in the local hub cache and the hub cannot be reached; run "
        f"`hf download {name} --local-dir DIR` on a machine with a network, copy DIR here and "
        f"pass its path."
    )
