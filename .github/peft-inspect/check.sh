#!/usr/bin/env bash
# What the GitHub action runs: one inspection; annotations in the log, Markdown in the job summary, SARIF for code scanning.
# Inputs come as PEFT_INSPECT_* variables; they are passed on as they are and never evaluated.
set -euo pipefail

arguments=()
if [[ -n "${PEFT_INSPECT_MODEL:-}" ]]; then
  arguments+=("${PEFT_INSPECT_MODEL}")
fi
if [[ -n "${PEFT_INSPECT_ARGUMENTS:-}" ]]; then
  # one argument per line, so that spaces in a path or a regular expression need no quoting
  while IFS= read -r argument; do
    [[ -n "${argument}" ]] && arguments+=("${argument}")
  done <<<"${PEFT_INSPECT_ARGUMENTS}"
fi
summary=$(mktemp)
trap 'rm -f "${summary}"' EXIT
arguments+=(--format github --also "markdown=${summary}")
if [[ -n "${PEFT_INSPECT_SARIF:-}" ]]; then
  arguments+=(--also "sarif=${PEFT_INSPECT_SARIF}")
fi

status=0
peft-inspect check "${arguments[@]}" || status=$?
cat "${summary}" >>"${GITHUB_STEP_SUMMARY:-/dev/null}"
if [[ ${status} -eq 2 ]]; then
  echo "::error title=peft-inspect::the model could not be inspected; the log says why"
fi
exit "${status}"
