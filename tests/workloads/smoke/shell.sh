# bash and coreutils: pipelines, job control, process substitution, traps.
set -euo pipefail
cd "$(mktemp -d)"
sum=$(seq 10000 | shuf | sort -n | uniq | paste -sd+); [ $((sum)) = 50005000 ]
[ "$(seq 1000 | tee >(wc -l > count) | md5sum)" = "$(seq 1000 | md5sum)" ]
for _ in {1..50}; do [ -s count ] && break; sleep 0.1; done
[ "$(cat count)" = 1000 ]
diff <(seq 5) <(printf '%s\n' {1..5})
coproc up { tr a-z A-Z; }
echo hello >&"${up[1]}"; eval "exec ${up[1]}>&-"; read -r word <&"${up[0]}"; [ "$word" = HELLO ]
declare -A colour=([red]=1 [blue]=2); [ ${#colour[@]} = 2 ]
got=; trap 'got=usr1' USR1; kill -USR1 $$; [ "$got" = usr1 ]
(exit 7) & wait $! && exit 1 || [ $? = 7 ]
set -m; sleep 100 & kill -TERM %1; wait %1 || [ $? = 143 ]; set +m
timeout 0.2 sleep 10 && exit 1 || [ $? = 124 ]
truncate -s 1M sparse; cp --sparse=always --reflink=auto -a sparse copy; cmp sparse copy
dd if=/dev/urandom of=random bs=64K count=4 conv=fsync status=none; split -b 50000 random part.; cat part.* | cmp - random
ln -s random link; ln random hard; [ "$(stat -c %h random)" = 2 ]; [ "$(readlink -f link)" = "$PWD/random" ]
install -m 640 random installed; touch -d '2001-02-03 04:05:06 UTC' installed; [ "$(date -u -r installed +%F)" = 2001-02-03 ]
mkfifo pipe; (cat random > pipe &); cmp pipe random
tar -c . | tar -x -C "$(mktemp -d)"; find . -type f -newer installed | xargs -n 1 -P 4 sha256sum > /dev/null
nice -n 5 true; nproc > /dev/null; df . > /dev/null; du -s . > /dev/null; id -u > /dev/null; who > /dev/null
ulimit -n > /dev/null; ulimit -Sn 256; [ "$(ulimit -n)" = 256 ]
# What is refused says so.
unshare --user true 2> why && exit 1; grep -q 'Operation not permitted' why
echo smoke-ok
