import sys

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

repository, directory, name = sys.argv[1:]
try:
    path = huggingface_hub.snapshot_download(
        repository,
        local_dir=directory or None,  # none: into the cache
        allow_patterns=[
            "README.md",
            "config.json",
            "preprocessor_config.json",
            "model.bin",
            "tokenizer.json",
            "vocabulary.*",
        ],
    )
except GatedRepoError:
    sys.exit(f"stt:model {name}: {repository} asks for a login. Choose another model.")
except RepositoryNotFoundError:
    sys.exit(f"stt:model {name}: there is no {repository} on the model hub. Check the name.")
except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
    sys.exit(
        f"stt:model {name}: the download from the model hub failed ({type(error).__name__}: "
        f"{str(error).splitlines()[0]}). Run up again: it goes on where it stopped."
    )
