#!/usr/bin/env bash
# Serves a model with vLLM, and says when it can be asked. Everything is set from the environment:
#
#   MODEL=meta-llama/Llama-3.3-70B-Instruct TENSOR_PARALLEL=4 PORT=8000 launch/serve_vllm.sh &
#
# The server is this process's child: it ends with it. With READY_FILE the file is made once the server answers.
set -euo pipefail

MODEL=${MODEL:?name the model to serve: a hub id or a folder}
REVISION=${REVISION:-}
SERVED_NAME=${SERVED_NAME:-$MODEL} # what `teacher.model` of the recipe says; it is part of the key of each kept answer
TENSOR_PARALLEL=${TENSOR_PARALLEL:-1}
PIPELINE_PARALLEL=${PIPELINE_PARALLEL:-1}
HOST=${HOST:-127.0.0.1} # the server asks for no key, so only this machine may reach it
PORT=${PORT:-8000}
MAX_MODEL_LEN=${MAX_MODEL_LEN:-8192}
MAX_NUM_SEQS=${MAX_NUM_SEQS:-256} # requests in a batch; more than this wait, so max_concurrency may be a little above it
GPU_MEMORY=${GPU_MEMORY:-0.92}
DTYPE=${DTYPE:-bfloat16}
READY_TIMEOUT=${READY_TIMEOUT:-1800} # seconds; a 70B from a network file system takes ten minutes and more
READY_FILE=${READY_FILE:-}

arguments=(
  "$MODEL"
  --served-model-name "$SERVED_NAME"
  --host "$HOST" --port "$PORT"
  --tensor-parallel-size "$TENSOR_PARALLEL"
  --pipeline-parallel-size "$PIPELINE_PARALLEL"
  # The longest prompt and answer together. The memory left for the cache of keys and values is shared by all requests,
  # so a bound far above what the recipe asks for costs throughput.
  --max-model-len "$MAX_MODEL_LEN"
  --max-num-seqs "$MAX_NUM_SEQS"
  --gpu-memory-utilization "$GPU_MEMORY"
  --dtype "$DTYPE"
  # Prompts that begin alike, as a judge's do, are computed once.
  --enable-prefix-caching
  # The sampling of the recipe holds; the model's own generation_config.json would fill in what a request leaves out.
  --generation-config vllm
  # One line a request is millions of lines.
  --disable-uvicorn-access-log
)
if [ -n "$REVISION" ]; then arguments+=(--revision "$REVISION"); fi

vllm serve "${arguments[@]}" "$@" &
server=$!
trap 'kill -TERM "$server" 2>/dev/null || true; wait "$server" || true' EXIT
trap 'exit 143' TERM INT

# The address to ask this machine at, whatever the server listens on.
case $HOST in 0.0.0.0 | ::) address=127.0.0.1 ;; *) address=$HOST ;; esac
deadline=$((SECONDS + READY_TIMEOUT))
until curl --silent --fail --max-time 5 "http://$address:$PORT/v1/models" >/dev/null; do
  kill -0 "$server" 2>/dev/null || { echo "serve_vllm: the server has ended; its messages are above" >&2; exit 1; }
  ((SECONDS < deadline)) || { echo "serve_vllm: no answer after $READY_TIMEOUT seconds" >&2; exit 1; }
  sleep 2 &
  wait $! # unlike a sleep in the foreground, this lets a signal in
done
echo "serve_vllm: $SERVED_NAME answers at http://$address:$PORT/v1" >&2
if [ -n "$READY_FILE" ]; then : >"$READY_FILE"; fi
wait "$server"
