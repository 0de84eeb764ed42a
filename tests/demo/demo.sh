#!/bin/bash
# The story of ward in one run: `make demo`. Each step is checked; the first
# that does not behave ends the demo with a non-zero exit. It works in a
# throw-away directory on a registry of its own, and leaves nothing behind.
set -euo pipefail

bin=${WARD_BIN:?WARD_BIN names the directory of ward and ward-launch}
if [ "$(id -u)" != 0 ]; then
  echo "demo: containers get ids of their own, which takes root: going on with sudo"
  exec sudo env "PATH=$PATH" "WARD_BIN=$bin" "$0" "$@"
fi

dir=$(mktemp -d /tmp/ward-demo.XXXXXX)
export WARD_ROOT=$dir/root HOME=$dir COSIGN_PASSWORD=
export PATH=$bin:$PATH
registry_pid=

finish() {
  local code=$?
  trap - EXIT INT TERM
  set +e
  if [ -n "$registry_pid" ]; then
    kill "$registry_pid" 2>/dev/null
    wait "$registry_pid" 2>/dev/null
  fi
  for id in $(ward ps -aq 2>/dev/null); do ward rm -f "$id" >/dev/null 2>&1; done
  rm -rf "$dir"
  if [ "$code" != 0 ]; then
    echo
    echo "demo: FAILED (exit $code)" >&2
    exit "$code"
  fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' off=$'\e[0m'; else bold= dim= off=; fi
number=0
step() { number=$((number + 1)); printf '\n%s%d. %s%s\n' "$bold" "$number" "$*" "$off"; }
fail() { echo "demo: $*" >&2; exit 1; }

# show ARGS…: prints the command as a person would type it, runs it, shows and
# keeps its output in $out; show_exit CODE ARGS… expects that exit code.
out=
show() { show_exit 0 "$@"; }
show_exit() {
  local want=$1 got=0 word line=
  shift
  for word; do
    [[ $word =~ ^[A-Za-z0-9_./:=@+,-]+$ ]] || word="'$word'"
    line+="$word "
  done
  line=${line//"$bin/"/}
  line=${line//"$dir/"/}
  printf '%s$ %s%s\n' "$dim" "${line% }" "$off"
  out=$("$@" 2>&1) || got=$?
  [ -z "$out" ] || sed -E -e "s#$dir/##g" -e 's/(.{600}).{20,}/\1 …/' -e 's/^/    /' <<<"$out"
  [ "$got" = "$want" ] || fail "expected exit $want, got $got"
  [ "$want" = 0 ] || printf '    %s(exit %s)%s\n' "$dim" "$got" "$off"
}
expect() { grep -qE -- "$1" <<<"$out" || fail "the output should say: $1"; }
reject() { ! grep -qE -- "$1" <<<"$out" || fail "the output should not say: $1"; }

cd "$dir"

step "An image from a busybox root file system, pushed to a registry"
mkdir -p rootfs/{bin,dev,etc,proc,root,run,sys,tmp}
cp "$(command -v busybox)" rootfs/bin/busybox
for tool in $(busybox --list); do [ "$tool" = busybox ] || ln -s busybox "rootfs/bin/$tool"; done
echo 'root:x:0:0:root:/root:/bin/sh' >rootfs/etc/passwd
echo 'root:x:0:' >rootfs/etc/group
tar -C rootfs --owner=0 --group=0 --numeric-owner -cf rootfs.tar .

printf '%s$ ward registry serve --addr 127.0.0.1:0 --dir registry &%s\n' "$dim" "$off"
ward registry serve --addr 127.0.0.1:0 --dir registry >registry.out 2>registry.err &
registry_pid=$!
for _ in $(seq 100); do
  grep -qE '127\.0\.0\.1:[0-9]+' registry.out registry.err && break
  kill -0 "$registry_pid" 2>/dev/null || fail "the registry ended: $(cat registry.err)"
  sleep 0.1
done
addr=$(grep -ohE '127\.0\.0\.1:[0-9]+' registry.out registry.err | head -n 1)
[ -n "$addr" ] || fail "the registry said no address"
ref=$addr/demo/busybox:1
echo "    listening on $addr"
show ward import rootfs.tar "$ref"
show ward push "$ref"

step "Nothing vouches for it, so it does not run"
show_exit 125 ward run --rm "$ref" echo hello
expect 'sha256:[0-9a-f]{64}'
expect 'rule: +trust\.'
expect 'remedy: .*ward '

step "A key, a signature, and a trust policy"
mkdir keys
show ward key generate --out keys
show ward sign --key keys/cosign.key "$ref"
show ward trust add --key keys/cosign.pub "$addr/demo/**"
show ward push "$ref"
show ward verify "$ref"

step "The same image on another machine: pulled from the registry, with its signature"
rm -rf "$WARD_ROOT/lib/images"
show ward pull "$ref"

step "Now it runs, with the least the kernel can give it"
show ward run --rm --name demo-inside -m 64m --pids-limit 50 "$ref" sh -c '
  echo "id map:      $(cat /proc/self/uid_map)"
  grep -E "^(CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp):" /proc/self/status
  echo "memory:      $(cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null)"
  echo "processes:   $(cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null)"
  touch /here 2>&1 || true'
expect 'id map: +0 +[1-9][0-9]+ +65536'
expect 'CapPrm:.0000000000000000'
expect 'CapEff:.0000000000000000'
expect 'CapBnd:.0000000000000000'
expect 'NoNewPrivs:.1'
expect 'Seccomp:.2'
expect 'memory: +67108864'
expect 'processes: +50'
expect 'Read-only file system'

step "More than policy allows is refused, with the reason"
show_exit 125 ward run --rm --cap-add SYS_ADMIN "$ref" true
expect 'SYS_ADMIN'
expect 'rule: '

step "One that wants more memory than it may have is killed, and that is on record"
show_exit 137 ward run --name demo-greedy -m 32m "$ref" sh -c 'echo starting; tail /dev/zero'
show ward ps -a
expect 'demo-greedy'
expect '137'
show ward logs demo-greedy
expect '^starting$'

step "The record of that run"
show ward audit log --run demo-greedy
for type in run.intent run.start run.oom run.exit run.seal; do expect "${type/./\\.}"; done

step "The log proves itself, against the public key"
show ward audit verify
cp -a "$WARD_ROOT/lib/audit" copy-of-the-log
file=$(grep -rlae run.intent copy-of-the-log | sort | head -n 1)
at=$(grep -abo -m1 run.intent "$file" | head -n 1 | cut -d: -f1)
printf '%s$ # flip one bit in a copy: byte %s of %s%s\n' "$dim" "$at" "$file" "$off"
byte=$(od -An -tu1 -j "$at" -N 1 "$file")
printf "\\x$(printf %x $((byte ^ 1)))" | dd of="$file" bs=1 seek="$at" conv=notrunc status=none
show_exit 5 ward audit verify --dir copy-of-the-log
expect 'damage in .* at byte [0-9]+'
show ward audit verify

step "One run, proved to somebody who has nothing but a receipt and the public key"
show ward audit prove demo-greedy --output receipt
printf '%s$ ward audit key > log.pub%s\n' "$dim" "$off"
ward audit key >log.pub
mkdir third-party
cp receipt log.pub third-party/
cd third-party
show env -i "$bin/ward" --root nothing-here audit verify --receipt receipt --key log.pub
expect 'proved: record'
expect 'run.intent'
printf '%s$ # one letter of the receipt changed%s\n' "$dim" "$off"
sed -i 's/busybox/busyb0x/' receipt
show_exit 5 env -i "$bin/ward" --root nothing-here audit verify --receipt receipt --key log.pub
cd ..

step "Nothing is left"
show ward rm demo-greedy
show ward ps -a
reject demo-greedy
! grep -F "$dir" /proc/self/mountinfo || fail "a mount is left"
for run in $(ward audit log --format json | grep -oE '"run":"[0-9a-f]{64}"' | cut -d'"' -f4 | sort -u); do
  left=$(find /sys/fs/cgroup -type d -name "*$run*" 2>/dev/null || true)
  [ -z "$left" ] || fail "a control group is left: $left"
done
echo "    no container, no mount, no control group; the records stay"
show ward audit verify

printf '\n%sdone: every step behaved%s\n' "$bold" "$off"
