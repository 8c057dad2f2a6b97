import sys

import huggingface_hub
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

repository, directory, name, *files = sys.argv[1:]
try:
    path = huggingface_hub.snapshot_download(
        repository,
        local_dir=directory or None,  # none: into the cache
        allow_patterns=files,
    )
except GatedRepoError:
    sys.exit(f"stt:model {name}: {repository} asks for a login. Choose another model.")
except RepositoryNotFoundError:
    sys.exit(f"stt:model {name}: there is no {repository} on the model hub. Check the name.")
except Exception as error:  # each version of the hub's library has others for a lost connection
    said = (str(error).splitlines() or [""])[0]
    sys.exit(
        f"stt:model {name}: the download from the model hub failed ({type(error).__name__}: {said}). "
        "Check the machine's network and disk, then run up again: it goes on where it stopped."
    )
