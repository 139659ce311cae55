"""Environment variables that are honoured and are not options. docs/environment.md lists them.

The variables of options derive from the Options struct: LLMCHAT_ and the name in capitals.
"""

# Variables of llmchat → what they do.
OWN = {
    "LLMCHAT_TRACEBACK": "Any value: show the stack of an error, warnings, and llama.cpp's log.",
    "LLMCHAT_NATIVE": "`0`: no compiled CPU step; `compile`: one built here, not that of the wheel;"
    " `checked`: one with assertions and sanitizers.",
    "LLMCHAT_NO_PLUGINS": "Any value: use no plugins (docs/plugins.md).",
    "LLMCHAT_API_KEY": "API key of the server, for `llmchat connect` and the files that it writes.",
    "LLMCHAT_PULL_WINDOW": "Seconds without progress after which a transfer is given up (30).",
    "LLMCHAT_PULL_RATE": "Bytes a second that a transfer must reach to go on (1000).",
}
# Variables of other programs → what they do here.
STANDARD = {
    "HF_HOME": "Folder of the Hugging Face cache.",
    "HF_HUB_CACHE": "Folder of downloaded repos; by default `hub` in HF_HOME.",
    "HF_TOKEN": "Token for gated and private repos, and for uploads.",
    "HF_TOKEN_PATH": "File that holds the token.",
    "HF_HUB_OFFLINE": "`1`: never use the network, as --offline does.",
    "HF_ENDPOINT": "Address of another Hub.",
    "HF_HUB_DOWNLOAD_TIMEOUT": "Seconds after which a silent connection is closed (10).",
    "PIP_INDEX_URL": "Package index for models from PyPI; pip's other variables are honoured.",
    "HTTPS_PROXY": "Proxy for the web; `HTTP_PROXY` in small letters, `ALL_PROXY`, `NO_PROXY` too.",
    "SSL_CERT_FILE": "Certificates that are trusted instead of the usual ones.",
    "OLLAMA_MODELS": "Folder of the models of ollama.",
    "AICHAT_CONFIG_DIR": "Folder of aichat's roles and macros, for `llmchat roles import`.",
    "LLM_USER_PATH": "Folder of llm's templates, for `llmchat roles import`.",
    "OPENAI_API_KEY": "Key for the server of --url.",
    "OPENAI_BASE_URL": "Address of the server for --engine openai.",
    "VLLM_API_KEY": "Key of the server that `llmchat deploy vllm` starts.",
    "CUDA_VISIBLE_DEVICES": "GPUs that may be used.",
    "OMP_NUM_THREADS": "Threads of the CPU engines.",
    "GOMP_SPINCOUNT": "How long OpenMP's threads spin; llmchat sets 5000 if it is not set.",
    "CC": "The C compiler that builds the compiled CPU step where the wheel has none.",
    "RANK": "Set by `accelerate launch`: only process 0 writes results.",
    "XDG_CONFIG_HOME": "Folder of config.toml, presets and keys.",
    "XDG_DATA_HOME": "Folder of the history.",
    "XDG_STATE_HOME": "Folder of the background server's socket and log.",
    "XDG_CACHE_HOME": "Folder of prepared models.",
    "NO_COLOR": "Any value: no colour.",
    "FORCE_COLOR": "Any value: colour even if stdout is not a terminal.",
    "FORCE_HYPERLINK": "`0` or `1`: whether links are clickable.",
    "COLORTERM": "`truecolor` or `24bit`: the terminal shows any colour; another value: 256.",
    "TERM": "`dumb`: no colour, no redrawing.",
    "COLUMNS": "Width of the terminal.",
    "TZ": "Time zone of the tool `clock`.",
    "VISUAL": "The editor for Ctrl-G and /edit.",
    "EDITOR": "The editor, if VISUAL is not set.",
    "SHELL": "The shell that runs `!command`.",
}  # fmt: skip
