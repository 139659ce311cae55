# A slim image of llmchat: no compiler in it, and full speed on x86-64 and arm64.
#   docker build -t llmchat .
#   docker run -it -v llmchat:/home/llmchat llmchat
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
COPY . /src
# pip fetches the build tools; the wheel carries the compiled step.
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /src

FROM python:${PYTHON}-slim
# The CPU build of torch is a tenth of the default one.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY --from=build /wheels /src/constraints.txt /install/
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" \
        --constraint /install/constraints.txt "$(ls /install/*.whl)[serve]" \
    && rm -r /install
RUN useradd --create-home llmchat
USER llmchat
VOLUME /home/llmchat
ENTRYPOINT ["llmchat"]
CMD ["chat"]
