# A slim image of llmchat: no compiler in it, and full speed on x86-64 and arm64.
#   docker build -t llmchat .
#   docker run -it -v llmchat:/home/llmchat llmchat
FROM python:3.13-slim AS build
COPY . /src
# pip fetches the build tools; the wheel carries the compiled step.
RUN pip wheel --no-deps --wheel-dir /wheels /src

FROM python:3.13-slim
COPY --from=build /wheels /wheels
# The CPU build of torch is a tenth of the default one.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" "$(ls /wheels/*.whl)[serve]" \
    && rm -r /wheels
RUN useradd --create-home llmchat
USER llmchat
VOLUME /home/llmchat
ENTRYPOINT ["llmchat"]
CMD ["chat"]
