"""Upload a folder to the Hub with huggingface_hub."""

from pathlib import Path

from llmchat.errors import NetworkError, UsageError
from llmchat.hub.endpoint import api, checked, offline
from llmchat.hub.response_guard import explained
from llmchat.output.terminal_text import excerpt
from llmchat.presets.model_names import REPO_ID
from llmchat.presets.types import Source
from llmchat.settings import World


def upload(
    folder: Path, repo: str, world: World, *, private: bool = False, message: str = ""
) -> str:
    """Create the repo if needed and commit every file at once; returns the commit's address."""
    if not REPO_ID.fullmatch(repo):
        raise UsageError(f"`{excerpt(repo)}` is not a valid Hub repo", "a repo is written org/name")
    source = checked(Source("hub", repo))
    if offline(world):
        raise NetworkError("offline mode is on", "leave --offline and HF_HUB_OFFLINE out to upload")
    hub = api(world)
    with explained(source, world):
        hub.create_repo(repo, private=private, exist_ok=True)
        return str(
            hub.upload_folder(
                repo_id=repo, folder_path=folder, commit_message=message or "Uploaded by llmchat"
            )
        )
