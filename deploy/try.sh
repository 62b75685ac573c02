#!/bin/sh
# Runs the images that `make images` built, as a deployment does: not as root, on a read-only root with a temporary
# /tmp. They share a network of their own that has loopback and nothing else, so no cloud is called.
#   deploy/try.sh [gcp|azure]
set -eu

cloud=${1:-gcp}
plane=sockerless/control-plane:$cloud
name=sockerless-try-$$
key=a-key-that-signs-for-this-try-and-for-nothing-else
started=""

end() {
    code=$?
    for one in $started; do
        if [ "$code" != 0 ]; then
            echo "--- $one" >&2
            docker logs --tail 20 "$name-$one" >&2 || true
        fi
        docker rm -f -v "$name-$one" >/dev/null
    done
}
trap end EXIT

# run ROLE IMAGE NETWORK [-e …] [-- ARGUMENTS]: a container that serves.
run() {
    role=$1 image=$2 net=$3
    shift 3
    options=""
    while [ $# -gt 0 ] && [ "$1" != -- ]; do options="$options $1"; shift; done
    [ $# = 0 ] || shift
    started="$role $started"
    # shellcheck disable=SC2086  # a list of words without blanks in them
    docker run -d --name "$name-$role" --network "$net" --read-only --tmpfs /tmp --cap-drop ALL \
        --security-opt no-new-privileges $options "$image" "$@" >/dev/null
}

# answers URL STATUS [TOKEN]: asked for from within, until it does or half a minute is over.
answers() {
    docker exec "$name-plane" python -c '
import sys, time, urllib.error, urllib.request
url, wanted, token = sys.argv[1], int(sys.argv[2]), "".join(sys.argv[3:])
until = time.monotonic() + 30
while True:
    try:
        asked = urllib.request.Request(url, headers={"Authorization": "Bearer " + token} if token else {})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            status, body = answer.status, answer.read(200)
    except urllib.error.HTTPError as refused:
        status, body = refused.code, refused.read(200)
    except OSError as error:
        status, body = 0, str(error).encode()
    if status == wanted:
        break
    if time.monotonic() > until:
        sys.exit(f"{url}: {status} {body!r} instead of {wanted}")
    time.sleep(0.2)
print(url, status, body.decode(errors="replace").strip()[:80])
' "$@"
}

network=container:$name-plane
backend="-e SOCKERLESS_GCR_PROJECT=try"
if [ "$cloud" = azure ]; then
    backend="-e SOCKERLESS_AZF_SUBSCRIPTION_ID=try -e SOCKERLESS_AZF_RESOURCE_GROUP=try -e SOCKERLESS_AZF_STORAGE_ACCOUNT=try"
fi
settings="-e SOCKERLESS_STORE=sqlite:///tmp/state.sqlite -e SOCKERLESS_KEY=$key
    -e SOCKERLESS_REGISTRY_URL=https://registry.invalid -e SOCKERLESS_REGISTRY_PREFIX=try $backend"

# shellcheck disable=SC2086
run plane "$plane" none $settings
answers http://127.0.0.1:8080/_ready 200
docker exec "$name-plane" sockerless tenant create team >/dev/null
token=$(docker exec "$name-plane" sockerless token create team)
answers http://127.0.0.1:8080/_ping 200 "$token"

run gateway sockerless/gateway "$network" -e PORT=8081 -e SOCKERLESS_DOCKER_LISTEN=tcp://127.0.0.1:8082 \
    -e SOCKERLESS_KEY=$key -e SOCKERLESS_CONTROL_PLANE_URL=http://127.0.0.1:8080 -e SOCKERLESS_GATEWAY_URL=http://127.0.0.1:8081
answers http://127.0.0.1:8082/version 200 "$token"
answers http://127.0.0.1:8082/version 401

run connect sockerless/connect "$network" -e SOCKERLESS_URL=http://127.0.0.1:8080 -e "SOCKERLESS_TOKEN=$token"
answers http://127.0.0.1:2375/containers/json 200

if [ "$cloud" = gcp ]; then
    # shellcheck disable=SC2086
    run functions sockerless/functions:gcp "$network" $settings -e PORT=8083 -e FUNCTION_TARGET=api
    docker exec "$name-functions" sockerless tenant create team >/dev/null
    answers http://127.0.0.1:8083/_ping 200 "$(docker exec "$name-functions" sockerless token create team)"
fi

for role in $started; do
    [ "$(docker exec "$name-$role" id -u)" = 65532 ]
    [ "$(docker inspect -f '{{.State.Running}}' "$name-$role")" = true ]
done
for role in $started; do
    docker stop -t 20 "$name-$role" >/dev/null
    echo "$role: exit code $(docker inspect -f '{{.State.ExitCode}}' "$name-$role")"
done
