# redis: append-only file, a snapshot by fork, a benchmark, restart with what was written.
set -euo pipefail
cd /var/lib/redis
start() {
  redis-server --port 6379 --bind 127.0.0.1 --dir /var/lib/redis --appendonly yes --save '' --logfile '' --io-threads 2 > log &
  server=$!
  for _ in {1..100}; do [ "$(redis-cli ping 2> /dev/null)" != PONG ] || return 0; sleep 0.1; done
  cat log >&2; return 1
}
start
[ "$(redis-cli set key value)" = OK ]
redis-cli incrby n 41 > /dev/null; [ "$(redis-cli incr n)" = 42 ]
[ "$(redis-cli eval 'return redis.call("get", KEYS[1])' 1 key)" = value ]
redis-benchmark -q -n 5000 -c 20 -P 4 -t set,get,lpush > bench; grep -q 'SET: .* requests per second' bench
redis-cli bgsave > /dev/null; redis-cli bgrewriteaof > /dev/null
for _ in {1..100}; do
  i=$(redis-cli info persistence)
  if grep -q rdb_bgsave_in_progress:0 <<< "$i" && grep -q aof_rewrite_in_progress:0 <<< "$i" && grep -q aof_rewrite_scheduled:0 <<< "$i"; then break; fi
  sleep 0.1
done
i=$(redis-cli info persistence); grep -q rdb_last_bgsave_status:ok <<< "$i"; grep -q aof_last_bgrewrite_status:ok <<< "$i"
redis-cli shutdown > /dev/null 2>&1 || true; wait $server
start
[ "$(redis-cli get key)" = value ] && [ "$(redis-cli get n)" = 42 ]
redis-cli shutdown > /dev/null 2>&1 || true; wait $server
echo smoke-ok
